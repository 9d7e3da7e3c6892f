"""Renders the chart with the real helm."""

import functools
import pathlib
import subprocess

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
CHART = ROOT / "helm" / "mcp-messaging"
TOOLS = ROOT / "target" / "helm"
HELMS = ("3", "4")
# What the set's file in the chart's folder ci is called, without its ending.
SETS = ("minimal", "trial", "everything", "gateway", "sentinel", "cluster-tls", "restricted")
# A rendering without a cluster must be told where the master keys are. So minimal renders as in a cluster in which the chart has made them.
TOLD = {"minimal": ("--set", "auth.existingSecret=minimal-mcp-messaging-master-keys")}
# Of a team's; what a test says of auth is in its place.
KEYS = {"auth": {"existingSecret": "mailbox-keys"}}
# Of Kubernetes: from Chart.yaml's kubeVersion to the newest with schemas.
KUBERNETES = tuple(f"1.{minor}" for minor in range(29, 38))


def run(helm, *arguments, stdin=None):
    """The finished process; helm's own settings stay out."""
    return subprocess.run(
        [TOOLS / f"helm{helm}" / "helm", *map(str, arguments)],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        env={"HOME": str(TOOLS), "PATH": "/usr/bin:/bin", "NO_COLOR": "1"},
    )


def values_file(name):
    return CHART / "ci" / f"{name}-values.yaml"


def template(helm, *arguments, chart=CHART, release="rel", kubernetes="1.34"):
    return run(helm, "template", release, chart, "--namespace", "mail", "--kube-version", kubernetes, *arguments)


def documents(text):
    return [document for document in yaml.safe_load_all(text) if document]


@functools.cache
def text_of(name, helm="4", kubernetes="1.34"):
    done = template(helm, "--values", values_file(name), *TOLD.get(name, ()), release=name, kubernetes=kubernetes)
    assert done.returncode == 0, done.stderr
    return done.stdout


def rendered(name, helm="4", kubernetes="1.34"):
    """The documents of a value set."""
    return documents(text_of(name, helm, kubernetes))


def render(values, kubernetes="1.34", release="rel"):
    """The documents for values given as a dictionary, over none but the defaults, with master keys of a team's if they don't say."""
    done = run(
        "4", "template", release, CHART, "--namespace", "mail", "--kube-version", kubernetes, "--values", "-",
        stdin=yaml.safe_dump(KEYS | values),
    )
    assert done.returncode == 0, done.stderr
    return documents(done.stdout)


def refusal(values, helm="4"):
    """What helm says to values that the chart must refuse."""
    done = run(helm, "template", "rel", CHART, "--values", "-", stdin=yaml.safe_dump(KEYS | values))
    assert done.returncode != 0, "it was accepted"
    return done.stderr


def notes(values):
    """What an install tells. Helm 4 alone renders it without a cluster."""
    done = run(
        "4", "install", "rel", CHART, "--dry-run=client", "--namespace", "mail", "--values", "-", stdin=yaml.safe_dump(KEYS | values)
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split("NOTES:", 1)[1]


def named(docs, kind, suffix=""):
    """The one document of a kind whose name ends so."""
    found = [doc for doc in docs if doc["kind"] == kind and doc["metadata"]["name"].endswith(suffix)]
    if not suffix and len(found) > 1:
        found = [doc for doc in found if doc["metadata"]["labels"]["app.kubernetes.io/component"] == "server"]
    assert len(found) == 1, f"{len(found)} of {kind} {suffix}"
    return found[0]


def deployment(docs):
    return named(docs, "Deployment")


def container(docs):
    (only,) = deployment(docs)["spec"]["template"]["spec"]["containers"]
    return only
