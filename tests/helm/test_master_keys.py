"""The master key that the chart makes: once, kept by whatever happens to the release, and never by guess."""

import base64
import re

import kubernetes_validate
import pytest

import chart
from cluster import Cluster
from pods import MASTER_KEYS

NAME = "rel-mcp-messaging-master-keys"
THREE = ("--set", "redis.url=redis://u:p@h", "--set", "host=mail.example.com", "--set", "replicas=3")


def done(process):
    assert process.returncode == 0, process.stderr
    return process.stdout


def of(cluster):
    secret = cluster.named("Secret", NAME)
    return secret and base64.b64decode(secret["data"]["master-keys"]).decode()


@pytest.mark.parametrize("helm", chart.HELMS)
def test_three_values_make_an_installation_that_asks_for_keys(helm):
    with Cluster() as cluster:
        said = done(cluster.helm("install", "rel", chart.CHART, *THREE, helm=helm))
        key = of(cluster)
        assert re.fullmatch(r"m[a-z0-9]{8}:[A-Za-z0-9_-]{43}", key), "as `mcp-messaging keys master` prints one"
        assert key not in said and NAME in said
        assert '[auth]\nmode = "key"' in cluster.named("ConfigMap", "rel-mcp-messaging")["data"]["config.toml"]
        env = cluster.named("Deployment", "rel-mcp-messaging")["spec"]["template"]["spec"]["containers"][0]["env"]
        assert {"secretKeyRef": {"name": NAME, "key": "master-keys"}} in [item.get("valueFrom") for item in env]
        # Helm's record of the revision that made it has a copy; none that follows has.
        assert key in done(cluster.helm("get", "hooks", "rel", helm=helm))
        # Upgrades leave it alone, and what a team does to it; so do a rollback, the end of the release, and another one of its name.
        done(cluster.helm("upgrade", "rel", chart.CHART, *THREE, "--set", "replicas=4", helm=helm))
        assert of(cluster) == key and key not in done(cluster.helm("get", "all", "rel", helm=helm))
        rotated = f"{MASTER_KEYS}\n{key}"
        cluster.named("Secret", NAME)["data"]["master-keys"] = base64.b64encode(rotated.encode()).decode()
        done(cluster.helm("upgrade", "rel", chart.CHART, *THREE, helm=helm))
        done(cluster.helm("rollback", "rel", "1", helm=helm))
        assert of(cluster) == rotated, "a master key that was taken out must not come back"
        done(cluster.helm("uninstall", "rel", helm=helm))
        assert [name for kind, name in cluster.objects if kind != "Namespace"] == [NAME]
        done(cluster.helm("install", "rel", chart.CHART, *THREE, helm=helm))
        assert of(cluster) == rotated
        # It was written once.
        assert cluster.written.count(("Secret", NAME)) == 1


def test_each_installation_has_its_own():
    keys = set()
    for _ in range(3):
        with Cluster() as cluster:
            done(cluster.helm("install", "rel", chart.CHART, *THREE))
            keys.add(of(cluster))
    assert len(keys) == 3


def test_it_is_there_before_the_hook_that_needs_it():
    with Cluster() as cluster:
        text = done(cluster.helm("template", "rel", chart.CHART, "--dry-run=server", *THREE, "--set", "migrate.enabled=true"))
    docs = chart.documents(text)
    made, job = chart.named(docs, "Secret", "-master-keys"), chart.named(docs, "Job")
    for document in (made, job):
        assert {"pre-install", "pre-upgrade"} <= set(document["metadata"]["annotations"]["helm.sh/hook"].split(","))
    weight = {doc["kind"]: int(doc["metadata"]["annotations"]["helm.sh/hook-weight"]) for doc in (made, job)}
    assert weight["Secret"] < weight["Job"]
    # Deleted before it is made, it would be another; deleted when it is there, it would be gone.
    assert made["metadata"]["annotations"]["helm.sh/hook-delete-policy"] == "hook-failed"
    kubernetes_validate.validate(made, chart.KUBERNETES[-1], strict=True)


def test_where_it_is_there_nothing_of_it_is_rendered():
    """And the rest is as with a Secret of that name given: what chart.TOLD relies on."""
    with Cluster() as cluster:
        cluster.keep({"apiVersion": "v1", "kind": "Secret", "type": "Opaque", "metadata": {"name": "minimal-mcp-messaging-master-keys"}, "stringData": {"master-keys": MASTER_KEYS}})
        text = done(cluster.helm("template", "minimal", chart.CHART, "--dry-run=server", "--values", chart.values_file("minimal"), "--kube-version", "1.34"))
    assert chart.documents(text) == chart.rendered("minimal")
    assert "master-keys" not in [doc["metadata"]["name"] for doc in chart.rendered("minimal") if doc["kind"] == "Secret"]


def test_a_secret_of_its_name_without_the_key_is_not_overwritten():
    with Cluster() as cluster:
        cluster.keep({"apiVersion": "v1", "kind": "Secret", "type": "Opaque", "metadata": {"name": NAME}, "stringData": {"other": "x"}})
        process = cluster.helm("install", "rel", chart.CHART, *THREE)
        assert process.returncode != 0 and 'has no key "master-keys"' in process.stderr, process.stderr
        assert list(cluster.objects) == [("Secret", NAME)]


@pytest.mark.parametrize("helm", chart.HELMS)
def test_without_a_sight_of_the_cluster_none_is_made(helm):
    """helm template and GitOps tools would make another one each time. A team's Secret needs no sight."""
    process = chart.template(helm, *THREE)
    assert process.returncode != 0 and "--set auth.existingSecret=" in process.stderr and "auth.mode=none" in process.stderr, process.stderr
    docs = chart.documents(done(chart.template(helm, *THREE, "--set", "auth.existingSecret=mailbox-keys")))
    assert [doc["metadata"]["name"] for doc in docs if doc["kind"] == "Secret"] == ["rel-mcp-messaging"], "that of redis.url"


def test_with_a_secret_of_the_teams_the_cluster_is_not_asked():
    """Who installs may then lack the right to read."""
    with Cluster() as cluster:
        done(cluster.helm("template", "rel", chart.CHART, "--dry-run=server", *THREE, "--set", "auth.existingSecret=mailbox-keys", "-s", "templates/deployment.yaml"))
        assert not [path for _, path in cluster.asked if path.endswith("/serviceaccounts") or "master-keys" in path], cluster.asked
