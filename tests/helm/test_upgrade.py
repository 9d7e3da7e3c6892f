"""From the previous version of the chart to this one: its values still go, and nothing changes that a cluster refuses to change."""

import copy
import re
import subprocess

import pytest
import yaml

import chart

# Paths of what Kubernetes does not let anybody change.
FIXED = {
    "Deployment": (("spec", "selector"),),
    "StatefulSet": (("spec", "selector"), ("spec", "serviceName"), ("spec", "volumeClaimTemplates")),
    "Service": (("spec", "clusterIP"),),
    "PersistentVolumeClaim": (("spec",),),
}
# What others refer to by name: it must not go.
NAMED = ("Service", "StatefulSet", "Deployment", "PersistentVolumeClaim", "Secret", "ConfigMap", "ServiceAccount")


def at(document, path):
    for key in path:
        document = document.get(key, {})
    return document


def is_hook(document):
    return "helm.sh/hook" in document["metadata"].get("annotations", {})


def breaks(old, new):
    """What an upgrade from the one rendering to the other would fail on, or tear down."""
    after = {(doc["kind"], doc["metadata"]["name"]): doc for doc in new if not is_hook(doc)}
    found = []
    for document in old:
        kind, name = document["kind"], document["metadata"]["name"]
        if is_hook(document):
            continue
        if (kind, name) not in after:
            if kind in NAMED:
                found.append(f"{kind} {name} goes")
            continue
        for path in FIXED.get(kind, ()):
            if settled(at(document, path)) != settled(at(after[kind, name], path)):
                found.append(f"{kind} {name}: {'.'.join(path)} cannot be changed")
    return found


def settled(node):
    """Claims of a StatefulSet carry no version; labels that do may differ nowhere else."""
    return yaml.safe_dump(node, sort_keys=True)


def previous():
    """Name and folder content of the newest chart in a tag that is not this version; None if there is none."""
    here = yaml.safe_load((chart.CHART / "Chart.yaml").read_text())["version"]
    path = chart.CHART.relative_to(chart.ROOT)

    def git(*words):
        return subprocess.run(["git", *words], cwd=chart.ROOT, capture_output=True, timeout=60)

    tags = git("tag", "--merged", "HEAD", "--sort=-creatordate").stdout.decode().split()
    for tag in tags:
        shown = git("show", f"{tag}:{path}/Chart.yaml")
        if shown.returncode == 0 and yaml.safe_load(shown.stdout)["version"] != here:
            return tag, git("archive", tag, str(path)).stdout
    return None


def test_an_upgrade_from_the_previous_version_goes(tmp_path):
    found = previous()
    if not found:
        pytest.skip("no tag holds another version of the chart: there is nothing to upgrade from")
    tag, archive = found
    subprocess.run(["tar", "-x", "-C", tmp_path], input=archive, check=True, timeout=60)
    before = tmp_path / chart.CHART.relative_to(chart.ROOT)
    for values in sorted((before / "ci").iterdir()):
        name = values.name.removesuffix("-values.yaml")
        old = chart.template("4", "--values", values, chart=before, release=name)
        new = chart.template("4", "--values", values, release=name)
        assert old.returncode == 0, old.stderr
        assert new.returncode == 0, f"values of {tag} are refused: {name}: {new.stderr}"
        assert breaks(chart.documents(old.stdout), chart.documents(new.stdout)) == [], f"{name} of {tag}"


def test_a_break_would_be_found():
    """The comparison itself, on this version and what could be done to it."""
    old = chart.rendered("trial")
    assert breaks(old, copy.deepcopy(old)) == []
    for kind, change, words in (
        ("Deployment", lambda doc: doc["spec"]["selector"]["matchLabels"].update(version="2"), "selector cannot be changed"),
        ("StatefulSet", lambda doc: doc["spec"].update(serviceName="other"), "serviceName cannot be changed"),
        ("Service", lambda doc: doc["metadata"].update(name="renamed"), "goes"),
    ):
        new = copy.deepcopy(old)
        change(next(doc for doc in new if doc["kind"] == kind))
        (said,) = breaks(old, new)
        assert re.search(words, said), said


def test_this_version_follows_semver():
    assert re.fullmatch(r"\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?", yaml.safe_load((chart.CHART / "Chart.yaml").read_text())["version"])
