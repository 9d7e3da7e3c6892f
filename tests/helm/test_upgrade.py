"""From the charts before this one (previous/) to this one: their values still go, nothing changes that a cluster refuses to change, and what is
torn down or replaced is said here. A release puts what `helm package` made of it there, with the values files of its folder ci beside it."""

import copy
import pathlib
import re

import pytest
import yaml

import chart
from cluster import Cluster, changed

PREVIOUS = sorted((pathlib.Path(__file__).parent / "previous").glob("*.tgz"))
# What others refer to by name: it must not go.
NAMED = ("Service", "StatefulSet", "Deployment", "PersistentVolumeClaim", "Secret", "ConfigMap", "ServiceAccount", "Ingress", "HTTPRoute")
# What an upgrade makes or takes away, hooks apart, by package and value set: nothing, unless it is said here.
MOVES = {}
POD_MAKERS = ("Deployment", "StatefulSet")
# Beside the servers, what gets new pods: nothing, and least of all the trial Redis, which holds mail, unless it is said here.
REPLACED = {
    # The version stood in the labels of its pod up to then: every upgrade restarted it.
    ("mcp-messaging-0.1.0", "trial"): {"trial-mcp-messaging-redis"},
}


def is_hook(document):
    return "helm.sh/hook" in document["metadata"].get("annotations", {})


def by_name(documents):
    return {(doc["kind"], doc["metadata"]["name"]): doc for doc in documents if not is_hook(doc)}


def breaks(old, new):
    """What an upgrade from the one rendering to the other would fail on, or tear down."""
    after, found = by_name(new), []
    for (kind, name), document in by_name(old).items():
        if (kind, name) in after:
            found += [f"{kind} {name}: {field} cannot be changed" for field in changed(document, after[kind, name])]
        elif kind in NAMED:
            found.append(f"{kind} {name} goes")
    return found


def pods_replaced(old, new):
    """Names of what gets new pods."""
    after = by_name(new)
    return {
        name for (kind, name), doc in by_name(old).items()
        if kind in POD_MAKERS and doc["spec"]["template"] != after[kind, name]["spec"]["template"]
    }


def value_sets(package):
    """The values files that the chart of that version had."""
    version = package.stem.rsplit("-", 1)[1]
    return sorted((package.parent / version).glob("*-values.yaml"))


PAIRS = [(package, values) for package in PREVIOUS for values in value_sets(package)]


def test_there_is_a_version_to_upgrade_from():
    assert PREVIOUS and len(PAIRS) >= 7
    here = chart_version()
    assert all(not package.stem.endswith(f"-{here}") for package in PREVIOUS), "this version, before it is released"


def chart_version():
    return yaml.safe_load((chart.CHART / "Chart.yaml").read_text())["version"]


@pytest.mark.parametrize("package, values", PAIRS, ids=lambda path: path.stem)
def test_values_of_a_previous_version_go_and_nothing_is_torn_down(package, values):
    """With what the change of auth.mode asks for: master keys, or "none" said."""
    name = values.name.removesuffix("-values.yaml")
    old = chart.template("4", "--values", values, chart=package, release=name)
    assert old.returncode == 0, old.stderr
    old = chart.documents(old.stdout)
    for said in ("auth.mode=none", "auth.existingSecret=mailbox-keys"):
        new = chart.template("4", "--values", values, "--set", said, release=name)
        assert new.returncode == 0, f"values of {package.name} are refused: {new.stderr}"
        new = chart.documents(new.stdout)
        assert breaks(old, new) == []
        moved = {"new": sorted(by_name(new).keys() - by_name(old).keys()), "gone": sorted(by_name(old).keys() - by_name(new).keys())}
        assert moved == MOVES.get((package.stem, name), {"new": [], "gone": []})
        servers = {chart.deployment(old)["metadata"]["name"]}
        assert pods_replaced(old, new) == servers | REPLACED.get((package.stem, name), set())


@pytest.mark.parametrize("package", PREVIOUS, ids=lambda path: path.stem)
@pytest.mark.parametrize("helm", chart.HELMS)
def test_a_default_install_upgrades_and_the_notes_tell_what_changes(helm, package):
    three = ("--set", "redis.url=redis://u:p@h", "--set", "host=mail.example.com", "--set", "replicas=3")
    with Cluster() as cluster:
        done = cluster.helm("install", "rel", package, *three, helm=helm)
        assert done.returncode == 0, done.stderr
        assert '[auth]\nmode = "none"' in cluster.named("ConfigMap", "rel-mcp-messaging")["data"]["config.toml"]
        done = cluster.helm("upgrade", "rel", chart.CHART, *three, helm=helm)
        assert done.returncode == 0, done.stderr
        assert "Until now nobody was asked" in done.stdout and "--set auth.mode=none" in done.stdout, done.stdout
        assert '[auth]\nmode = "key"' in cluster.named("ConfigMap", "rel-mcp-messaging")["data"]["config.toml"]
        key = cluster.named("Secret", "rel-mcp-messaging-master-keys")
        assert key
        # Once changed, it is not told again.
        done = cluster.helm("upgrade", "rel", chart.CHART, *three, helm=helm)
        assert done.returncode == 0 and "Until now nobody" not in done.stdout, done.stdout
        # Back, and forth again with the same master key.
        done = cluster.helm("rollback", "rel", "1", helm=helm)
        assert done.returncode == 0, done.stderr
        assert '[auth]\nmode = "none"' in cluster.named("ConfigMap", "rel-mcp-messaging")["data"]["config.toml"]
        done = cluster.helm("upgrade", "rel", chart.CHART, *three, helm=helm)
        assert done.returncode == 0 and cluster.named("Secret", "rel-mcp-messaging-master-keys") == key, done.stderr


@pytest.mark.parametrize("package", PREVIOUS, ids=lambda path: path.stem)
def test_values_that_are_reused_keep_what_was(package):
    """--reuse-values takes the former default along; who said none goes on with none."""
    with Cluster() as cluster:
        assert cluster.helm("install", "rel", package, "--set", "redis.url=redis://h").returncode == 0
        done = cluster.helm("upgrade", "rel", chart.CHART, "--reuse-values")
        assert done.returncode == 0, done.stderr
        assert '[auth]\nmode = "none"' in cluster.named("ConfigMap", "rel-mcp-messaging")["data"]["config.toml"]
        assert "Nobody has to prove anything" in done.stdout


def test_a_break_would_be_found():
    """The comparison itself, and the stand-in for a cluster, on this version and what could be done to it."""
    old = chart.rendered("trial")
    assert breaks(old, copy.deepcopy(old)) == [] and pods_replaced(old, old) == set()
    for kind, change, words in (
        ("Deployment", lambda doc: doc["spec"]["selector"]["matchLabels"].update(version="2"), "selector cannot be changed"),
        ("StatefulSet", lambda doc: doc["spec"].update(serviceName="other"), "serviceName cannot be changed"),
        ("StatefulSet", lambda doc: doc["spec"].update(volumeClaimTemplates=[{}]), "volumeClaimTemplates cannot be changed"),
        ("Service", lambda doc: doc["metadata"].update(name="renamed"), "goes"),
    ):
        new = copy.deepcopy(old)
        change(next(doc for doc in new if doc["kind"] == kind))
        (said,) = breaks(old, new)
        assert re.search(words, said), said
    new = copy.deepcopy(old)
    chart.deployment(new)["spec"]["template"]["spec"]["containers"][0]["env"].append({"name": "X", "value": "1"})
    assert pods_replaced(old, new) == {"trial-mcp-messaging"}


def test_a_cluster_refuses_what_cannot_be_changed():
    """An upgrade that a real one would refuse fails here too: the size of the trial Redis' claim is such a thing."""
    trial = ("--set", "redis.enabled=true", "--set", "auth.mode=none")
    with Cluster() as cluster:
        assert cluster.helm("install", "rel", chart.CHART, *trial).returncode == 0
        done = cluster.helm("upgrade", "rel", chart.CHART, *trial, "--set", "redis.persistence.size=2Gi")
        assert done.returncode != 0 and "volumeClaimTemplates" in done.stderr, done.stderr


def test_another_version_does_not_restart_the_trial_redis():
    labels = chart.named(chart.rendered("trial"), "StatefulSet")["spec"]["template"]["metadata"]["labels"]
    assert not [value for value in labels.values() if re.search(r"\d+\.\d+\.\d+", value)], labels


@pytest.mark.parametrize("name", chart.SETS)
def test_a_job_is_never_upgraded_but_made_anew(name):
    """Its template cannot be changed. As a hook that is deleted before, it is not part of an upgrade."""
    for document in chart.rendered(name):
        if document["kind"] in ("Job", "Pod"):
            annotations = document["metadata"]["annotations"]
            assert "before-hook-creation" in annotations["helm.sh/hook-delete-policy"], document["metadata"]["name"]


def test_this_version_follows_semver():
    assert re.fullmatch(r"\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?", chart_version())
