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
        ({"auth": {"mode": "basic"}}, "'/auth/mode': value must be one of 'none', 'key', 'oauth', 'proxy'"),
        ({"image": {"digest": "latest"}}, "'/image/digest': 'latest'"),
        ({"service": {"port": 70000}}, "'/service/port'"),
        ({"probes": {"liveness": {"httpGet": {}}}}, "'httpGet' not allowed"),
        ({"resources": {"limit": {}}}, "'limit' not allowed"),
        ({"keda": {"authenticationRef": {"secret": "x"}}}, "'secret' not allowed"),
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
        ({**URL, "auth": {"mode": "proxy"}}, "set config.proxy.trusted"),
        ({**URL, "auth": {"mode": "oauth"}}, "set config.oauth.issuer"),
        ({**URL, "auth": {"mode": "oauth"}, "config": {"oauth": {"issuer": "https://id"}}}, "set config.oauth.resource"),
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
        ({**URL, "service": {"loadBalancerSourceRanges": ["192.0.2.0/24"]}}, "not LoadBalancer"),
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

    # These are empty by default and their keys are known.
    tree = values()
    tree["keda"]["authenticationRef"] = {"name": "n", "kind": "TriggerAuthentication"}
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


def test_servers_hook_and_helm_test_have_the_master_keys_and_no_configuration_has():
    documents = chart.render({**URL, "migrate": {"enabled": True}})
    pods = {doc["kind"]: doc["spec"]["template"]["spec"] for doc in documents if doc["kind"] in ("Deployment", "Job")}
    pods |= {doc["metadata"]["name"]: doc["spec"] for doc in documents if doc["kind"] == "Pod"}
    assert set(pods) == {"Deployment", "Job", "rel-mcp-messaging-test-doctor"}, "the test that sends without a key is left out"
    secret = {"valueFrom": {"secretKeyRef": {"name": "mailbox-keys", "key": "master-keys"}}}
    for name, pod in pods.items():
        env = {entry.pop("name"): entry for entry in pod["containers"][0]["env"]}
        assert env["MCP_MESSAGING__AUTH__MASTER_KEYS"] == secret, name
    files = [document["data"]["config.toml"] for document in documents if document["kind"] == "ConfigMap" and "config.toml" in document["data"]]
    assert len(files) == 2 and all('[auth]\nmode = "key"' in file and "master" not in file for file in files)


def test_master_keys_may_come_in_a_file_of_somebody_elses():
    """Such as the Secrets Store CSI driver's: no Secret is made or named, and helm test mounts it too."""
    volume = {"name": "keys", "csi": {"driver": "secrets-store.csi.k8s.io", "readOnly": True}}
    mount = {"name": "keys", "mountPath": "/keys", "readOnly": True}
    values = {**URL, "auth": {}, "config": {"auth": {"master_keys_file": "/keys/master"}}, "extraVolumes": [volume], "extraVolumeMounts": [mount]}
    documents = chart.render(values)
    assert [doc["metadata"]["name"] for doc in documents if doc["kind"] == "Secret"] == ["rel-mcp-messaging"], "that of redis.url"
    assert "MASTER_KEYS" not in yaml.safe_dump(chart.deployment(documents))
    assert 'master_keys_file = "/keys/master"' in chart.named(documents, "ConfigMap")["data"]["config.toml"]
    spec = chart.named(documents, "Pod", "-test-doctor")["spec"]
    assert {"name": "MCP_MESSAGING__AUTH__MASTER_KEYS_FILE", "value": "/keys/master"} in spec["containers"][0]["env"]
    assert spec["volumes"] == [volume] and spec["containers"][0]["volumeMounts"] == [mount]
    assert "both name master keys" in chart.refusal({**values, "auth": {"existingSecret": "s"}})


@pytest.mark.parametrize(
    "wrong, words",
    [
        ({"auth": {}}, "cannot see whether the cluster has the master key"),
        ({"auth": {"mode": "none", "existingSecret": "s"}}, "auth.mode is not key"),
        ({"config": {"auth": {"master_keys": "m1:x"}}}, "see auth.existingSecret"),
    ],
)
def test_keys_that_could_not_be_or_would_be_shown_are_refused(wrong, words):
    assert words in chart.refusal({**URL, **wrong}, "4")


def test_what_a_chart_that_contains_this_one_shares_is_let_through():
    chart.render({**URL, "global": {"imageRegistry": "x"}})


def test_the_notes_tell_the_next_commands_and_the_dangers():
    said = chart.notes({**URL, "host": "mail.example.com"})
    steps = ["rollout status deployment/rel-mcp-messaging", "helm -n mail test rel", "keys issue --client alice", "claude mcp add", 'Authorization: Bearer KEY"']
    places = [said.find(step) for step in steps]
    assert -1 not in places and places == sorted(places), said
    assert "port-forward service/rel-mcp-messaging" in said and "nothing makes mail.example.com reachable yet" in said
    assert "redis://h" not in said and "Nobody has to prove anything" not in said and "was made on the first install" not in said
    none = {"auth": {"mode": "none"}}
    said = chart.notes({**URL, **none, "host": "mail.example.com", "ingress": {"enabled": True, "tls": [{"secretName": "t"}]}, "networkPolicy": {"enabled": False}})
    assert "messaging https://mail.example.com/mcp" in said and "any pod of the cluster can" in said
    assert "Nobody has to prove anything" in said and "keys issue" not in said and "Bearer" not in said
    assert "Keys travel as they are" in chart.notes({**URL, "host": "mail.example.com", "ingress": {"enabled": True}})
    assert "for trials" in chart.notes({"redis": {"enabled": True}})
    outside = {**URL, "service": {"type": "LoadBalancer"}}
    assert "calls from outside the cluster are dropped" in chart.notes(outside)
    assert "are dropped" not in chart.notes({**outside, "networkPolicy": {"from": [{"ipBlock": {"cidr": "192.0.2.0/24"}}]}})
    route = {**URL, "host": "m.example.com", "httpRoute": {"enabled": True, "parentRefs": [{"name": "g"}]}}
    assert "timeouts.request=0s" in chart.notes(route)
    assert "timeouts.request" not in chart.notes({**route, "httpRoute": {**route["httpRoute"], "timeouts": {"request": "0s"}}})
