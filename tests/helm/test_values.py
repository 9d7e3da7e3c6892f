"""Wrong values are refused with words that help; right ones are documented."""

import json
import re

import pytest
import yaml

import chart

URL = {"redis": {"url": "redis://h"}}


def values():
    return yaml.safe_load((chart.CHART / "values.yaml").read_text())


def schema():
    return json.loads((chart.CHART / "values.schema.json").read_text())


@pytest.mark.parametrize("helm", chart.HELMS)
def test_without_redis_nothing_is_installed_and_the_remedy_is_said(helm):
    said = chart.refusal({}, helm)
    assert "Where is Redis?" in said and "--set redis.url=" in said and "--set redis.existingSecret=" in said, said


@pytest.mark.parametrize("helm", chart.HELMS)
@pytest.mark.parametrize(
    "wrong, words",
    [
        ({"replicaCount": 2}, "'replicaCount' not allowed"),
        ({"redis": {"urll": "redis://h"}}, "'urll' not allowed"),
        ({"replicas": "two"}, "'/replicas': got string, want integer"),
        ({"replicas": 1.5}, "'/replicas': got number, want integer"),
        ({"ingress": {"enabled": "yes"}}, "'/ingress/enabled': got string, want boolean"),
        ({"service": {"annotations": {"a": 1}}}, "'/service/annotations/a': got number, want string"),
        ({"podLabels": {"a": True}}, "'/podLabels/a': got boolean, want string"),
        ({"metrics": {"interval": "15 s"}}, "'/metrics/interval': '15 s'"),
        ({"auth": {"mode": "oauth"}}, "'/auth/mode': value must be one of 'none', 'key'"),
        ({"image": {"digest": "latest"}}, "'/image/digest': 'latest'"),
        ({"service": {"port": 70000}}, "'/service/port'"),
        ({"probes": {"liveness": {"httpGet": {}}}}, "'httpGet' not allowed"),
        ({"resources": {"limit": {}}}, "'limit' not allowed"),
        ({"config": {"http": {"workers": {"deep": 1}}}}, "'/config/http/workers'"),
        ({"extraEnv": {"A-B": "x"}}, "'A-B'"),
    ],
)
def test_the_schema_refuses(helm, wrong, words):
    said = chart.refusal({"redis": {"url": "redis://h"}, **wrong}, helm)
    assert words in said, said


@pytest.mark.parametrize(
    "wrong, words",
    [
        ({"redis": {"url": "redis://h", "enabled": True}}, "exactly one of"),
        ({"redis": {"url": "http://h"}}, "redis.url must begin with redis://"),
        ({"redis": {"url": "redis://u:p@h", "existingSecret": "s"}}, "$(REDIS_PASSWORD)"),
        ({"redis": {"url": "redis://u:$(REDIS_PASSWORD)@h"}}, "redis.existingSecret"),
        ({"redis": {"enabled": True}, "migrate": {"enabled": True}}, "migrate.enabled"),
        ({**URL, "migrate": {"redis": {"url": "redis://h"}}}, "migrate.enabled is false"),
        ({**URL, "host": "https://mail.example.com"}, "no host name"),
        ({**URL, "host": "mail.example.com:8123"}, "no host name"),
        ({**URL, "ingress": {"enabled": True}}, "set host"),
        ({**URL, "host": "m.example.com", "httpRoute": {"enabled": True}}, "httpRoute.parentRefs"),
        ({**URL, "host": "m", "ingress": {"enabled": True, "controller": "other"}}, "controllerFrom"),
        ({**URL, "autoscaling": {"enabled": True}, "keda": {"enabled": True, "prometheus": "http://p"}}, "take one"),
        ({**URL, "autoscaling": {"enabled": True, "targetCPU": 0, "targetWaiters": 0}}, "nothing to scale by"),
        ({**URL, "autoscaling": {"enabled": True, "minReplicas": 9, "maxReplicas": 3}}, "above maxReplicas"),
        ({**URL, "keda": {"enabled": True}}, "keda.prometheus"),
        ({**URL, "metrics": {"podMonitor": {"enabled": True}, "serviceMonitor": {"enabled": True}}}, "twice"),
        ({**URL, "service": {"type": "NodePort"}, "metrics": {"serviceMonitor": {"enabled": True}}}, "podMonitor"),
        ({**URL, "extraVolumes": [{"name": "config", "emptyDir": {}}]}, "extraVolumes"),
        ({**URL, "service": {"port": 80, "opsPort": 80}}, "must differ"),
        ({**URL, "drain": {"terminationGracePeriodSeconds": 16}}, "at least 17"),
        ({**URL, "drain": {"delaySeconds": 20}, "config": {"http": {"shutdown_seconds": 20}}}, "at least 42"),
        ({**URL, "config": {"http": {"port": 1}}}, "config.http.port cannot be set there"),
        ({**URL, "config": {"redis": {"url": "redis://u:p@h"}}}, "config.redis.url cannot be set there"),
        ({**URL, "config": {"http": {"allowed_hosts": ["*"]}}}, "allowedHosts"),
        ({**URL, "config": {"ops": {"listen": ""}}}, "config.ops.listen"),
        ({**URL, "config": {"queue": {"backend": "memory"}}}, "config.queue.backend"),
    ],
)
def test_what_does_not_go_together_is_refused(wrong, words):
    said = chart.refusal(wrong)
    assert words in said, said


@pytest.mark.parametrize("helm", chart.HELMS)
@pytest.mark.parametrize("wrong", [{"redis": {"url": "http://u:hunter2@h"}}, {"redis": {"url": "hunter2", "enabled": True}}])
def test_a_refusal_does_not_print_a_password(helm, wrong):
    assert "hunter2" not in chart.refusal(wrong, helm)


def walk(tree, at=""):
    """Every key of values.yaml that the chart itself names: not what a user's map holds."""
    for key, value in tree.items():
        path = f"{at}.{key}" if at else key
        yield path
        if isinstance(value, dict):
            yield from walk(value, path)


def free(node):
    return "properties" not in node


def node_of(path):
    definitions = schema()["definitions"]
    node = schema()
    for key in path.split("."):
        if "$ref" in node:
            node = definitions[node["$ref"].rsplit("/", 1)[1]]
        if free(node):
            return node
        node = node["properties"][key]
    return node


def test_the_schema_knows_every_value_and_only_those():
    for path in walk(values()):
        node_of(path)  # a KeyError names what is missing

    def compare(node, tree, at):
        if "properties" not in node:
            return
        assert node["additionalProperties"] is False, f"{at or 'the top'} takes unknown keys"
        extra = set(node["properties"]) - set(tree) - ({"global"} if not at else set())
        assert not extra, f"in the schema, not in values.yaml: {at}: {extra}"
        for key, below in node["properties"].items():
            if isinstance(tree.get(key), dict):
                compare(below, tree[key], f"{at}.{key}")

    # httpRoute.timeouts is empty by default and its two keys are known.
    tree = values()
    tree["httpRoute"]["timeouts"] = {"request": "0s", "backendRequest": "0s"}
    compare(schema(), tree, "")


def test_every_value_is_documented():
    """readme-generator holds the comments to the values; this holds the README's tables to the comments."""
    text = (chart.CHART / "values.yaml").read_text()
    readme = (chart.CHART / "README.md").read_text()
    documented = re.findall(r"^ *## @param (\S+)", text, re.M)
    assert len(documented) > 100 and len(documented) == len(set(documented))
    for name in documented:
        assert f"`{name}`" in readme, name


KEYED = {**URL, "auth": {"mode": "key", "existingSecret": "mailbox-keys"}}


def test_with_keys_the_servers_and_the_hook_have_the_master_keys_and_the_configuration_has_not():
    documents = chart.render({**KEYED, "migrate": {"enabled": True}})
    containers = {
        document["kind"]: document["spec"]["template"]["spec"]["containers"][0]
        for document in documents
        if document["kind"] in ("Deployment", "Job")
    }
    secret = {"valueFrom": {"secretKeyRef": {"name": "mailbox-keys", "key": "master-keys"}}}
    for kind in ("Deployment", "Job"):
        env = {entry.pop("name"): entry for entry in containers[kind]["env"]}
        assert env["MCP_MESSAGING__AUTH__MASTER_KEYS"] == secret, kind
    files = [document["data"]["config.toml"] for document in documents if document["kind"] == "ConfigMap" and "config.toml" in document["data"]]
    assert files and all('[auth]\nmode = "key"' in file and "master" not in file for file in files)
    # The pod that sends without a key is left out, and the one that asks for readiness needs none.
    tests = {document["metadata"]["name"]: document for document in documents if document["kind"] == "Pod"}
    assert list(tests) == ["rel-mcp-messaging-test-ready"]
    (ready,) = tests["rel-mcp-messaging-test-ready"]["spec"]["containers"]
    assert {"name": "MCP_MESSAGING__AUTH__MODE", "value": "none"} in ready["env"]
    said = notes(KEYED)
    assert "keys issue --client alice" in said and "Nobody has to prove anything" not in said


@pytest.mark.parametrize(
    "wrong, words",
    [
        ({"auth": {"mode": "key"}}, "set auth.existingSecret"),
        ({"auth": {"existingSecret": "s"}}, "auth.mode is not key"),
        ({"config": {"auth": {"master_keys": "m1:x"}}}, "see auth.existingSecret"),
        ({"config": {"auth": {"master_keys_file": "/x"}}}, "see auth.existingSecret"),
    ],
)
def test_keys_that_could_not_be_or_would_be_shown_are_refused(wrong, words):
    assert words in chart.refusal({**URL, **wrong}, "4")


def test_what_a_chart_that_contains_this_one_shares_is_let_through():
    chart.render({**URL, "global": {"imageRegistry": "x"}})


def notes(values):
    """Helm 4 alone renders them without a cluster."""
    done = chart.run("4", "install", "rel", chart.CHART, "--dry-run=client", "--namespace", "mail", "--values", "-", stdin=yaml.safe_dump(values))
    assert done.returncode == 0, done.stderr
    return done.stdout.split("NOTES:", 1)[1]


def test_the_notes_tell_the_next_commands_and_the_dangers():
    said = notes({**URL, "host": "mail.example.com"})
    assert "rollout status deployment/rel-mcp-messaging" in said and "helm -n mail test rel" in said
    assert "port-forward service/rel-mcp-messaging" in said and "nothing makes mail.example.com reachable yet" in said
    assert "Nobody has to prove anything" in said and "redis://h" not in said
    said = notes({**URL, "host": "mail.example.com", "ingress": {"enabled": True, "tls": [{"secretName": "t"}]}, "networkPolicy": {"enabled": False}})
    assert "messaging https://mail.example.com/mcp" in said and "any pod of the cluster can" in said
    assert "for trials" in notes({"redis": {"enabled": True}})
