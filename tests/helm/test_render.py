"""Every value set, with both helms, is what clusters and operators accept."""

import pathlib
import re
import subprocess
import tomllib

import kubernetes_validate
import pytest
import yaml

import chart

CUSTOM = ("gateway.networking.k8s.io/", "keda.sh/", "monitoring.coreos.com/")


def test_the_value_sets_are_those_in_the_chart():
    there = sorted(path.name.removesuffix("-values.yaml") for path in (chart.CHART / "ci").iterdir())
    assert there == sorted(chart.SETS)


@pytest.mark.parametrize("helm", chart.HELMS)
@pytest.mark.parametrize("name", (None, *chart.SETS))
def test_lint(helm, name):
    values = ["--values", chart.values_file(name)] if name else []
    done = chart.run(helm, "lint", "--strict", chart.CHART, *values)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[WARNING]" not in done.stdout and "[ERROR]" not in done.stdout, done.stdout


@pytest.mark.parametrize("name", chart.SETS)
def test_both_helms_render_the_same(name):
    assert chart.rendered(name, "3") == chart.rendered(name, "4")


@pytest.mark.parametrize("kubernetes", chart.KUBERNETES)
@pytest.mark.parametrize("name", chart.SETS)
def test_kubernetes_accepts(name, kubernetes):
    seen = 0
    for document in chart.rendered(name, kubernetes=kubernetes):
        if document["apiVersion"].startswith(CUSTOM):
            continue
        against = kubernetes_validate.validate(document, kubernetes, strict=True)
        assert against == kubernetes, f"no schemas of {kubernetes}: {against}"
        seen += 1
    assert seen >= 6


def test_the_schemas_would_find_a_mistake():
    document = chart.deployment(chart.rendered("minimal"))
    document["spec"]["template"]["spec"]["containers"][0]["livenessprobe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(document, chart.KUBERNETES[-1], strict=True)


def crds(tmp_path, documents):
    path = tmp_path / "custom.yaml"
    path.write_text(yaml.safe_dump_all(documents))
    script = pathlib.Path(__file__).with_name("crds.mjs")
    return subprocess.run(["node", script, path], capture_output=True, text=True, timeout=60)


def test_the_operators_accept_their_resources(tmp_path):
    documents = [
        document
        for name in chart.SETS
        for document in chart.rendered(name)
        if document["apiVersion"].startswith(CUSTOM)
    ]
    kinds = {document["kind"] for document in documents}
    assert kinds >= {"HTTPRoute", "ScaledObject", "PodMonitor", "ServiceMonitor", "PrometheusRule"}, kinds
    done = crds(tmp_path, documents)
    assert done.returncode == 0, done.stdout + done.stderr
    documents[0]["spec"]["surprise"] = {"interval": 1}
    documents[0]["spec"].pop("parentRefs", None)
    documents[0]["spec"]["hostnames"] = "one"
    assert crds(tmp_path, documents[:1]).returncode == 1, "a wrong one passed"


def test_a_package_can_be_made_and_is_complete(tmp_path):
    """What is packaged renders as the folder does, and carries nothing that only tests need."""
    done = chart.run("4", "package", chart.CHART, "--destination", tmp_path)
    assert done.returncode == 0, done.stderr
    (package,) = tmp_path.glob("*.tgz")
    assert package.name == f"mcp-messaging-{chart_yaml()['version']}.tgz"
    for helm in chart.HELMS:
        done = chart.template(helm, "--values", chart.values_file("everything"), chart=package, release="everything")
        assert done.returncode == 0, done.stderr
        assert chart.documents(done.stdout) == chart.rendered("everything")
    names = subprocess.run(["tar", "tzf", package], capture_output=True, text=True, check=True).stdout
    assert "/README.md" in names and "/values.schema.json" in names and "/ci/" not in names, names


def chart_yaml():
    return yaml.safe_load((chart.CHART / "Chart.yaml").read_text())


def test_the_chart_installs_the_version_of_this_repository():
    with open(chart.ROOT / "Cargo.toml", "rb") as file:
        version = tomllib.load(file)["package"]["version"]
    assert chart_yaml()["appVersion"] == version
    assert chart.container(chart.rendered("minimal"))["image"] == f"mcp-messaging:{version}"


def test_a_long_release_name_gives_valid_names():
    docs = chart.render({"redis": {"enabled": True}, "dashboards": {"enabled": True}}, release="a" * 53)
    for document in docs:
        name = document["metadata"]["name"]
        assert len(name) <= 63 and re.fullmatch("[a-z0-9]([-a-z0-9]*[a-z0-9])?", name), name
