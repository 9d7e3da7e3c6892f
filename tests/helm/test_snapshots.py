"""What a change does to the manifests is seen in review: the whole of some value sets, and by name what a cluster relies on."""

import pathlib
import tomllib

import pytest
import yaml

import chart
from snapshot import snapshot

SNAPSHOTS = pathlib.Path(__file__).with_name("snapshots")
URL = {"redis": {"url": "redis://h"}}


@pytest.mark.parametrize("path", sorted(SNAPSHOTS.glob("*.yaml")), ids=lambda path: path.stem)
def test_nothing_changed_unseen(path):
    assert snapshot(path.stem) == path.read_text(), "see the difference; if it is meant, run helm/update"


def test_there_are_snapshots():
    assert {path.stem for path in SNAPSHOTS.iterdir()} >= {"minimal", "everything", "restricted"}


def pod_specs(docs):
    for document in docs:
        if document["kind"] == "Pod":
            yield document["metadata"]["name"], document["spec"]
        elif document["kind"] in ("Deployment", "StatefulSet", "Job"):
            yield document["metadata"]["name"], document["spec"]["template"]["spec"]


@pytest.mark.parametrize("name", chart.SETS)
def test_every_pod_meets_the_restricted_standard(name):
    """https://kubernetes.io/docs/concepts/security/pod-security-standards, "Restricted", and no token."""
    specs = list(pod_specs(chart.rendered(name)))
    assert specs
    for pod, spec in specs:
        assert spec["automountServiceAccountToken"] is False, pod
        assert spec["enableServiceLinks"] is False, f"{pod}: a Service named mcp-server would set MCP_SERVER_PORT"
        assert not any(spec.get(word) for word in ("hostNetwork", "hostPID", "hostIPC")), pod
        security = spec["securityContext"]
        assert security["runAsNonRoot"] is True and security["runAsUser"] > 10000, pod
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}, pod
        for volume in spec.get("volumes", []):
            assert set(volume) - {"name"} <= {"configMap", "secret", "emptyDir"}, pod
        for container in spec["containers"]:
            own = container["securityContext"]
            assert own["allowPrivilegeEscalation"] is False and own["readOnlyRootFilesystem"] is True, pod
            assert own["capabilities"] == {"drop": ["ALL"]}, pod
            assert "memory" in container["resources"]["limits"] and "memory" in container["resources"]["requests"], pod


@pytest.mark.parametrize("name", chart.SETS)
def test_no_list_names_a_thing_twice(name):
    """A server-side apply, as Helm 4 does it, refuses lists in which a key comes twice; no schema finds that."""

    def once(things, *keys):
        named = [tuple(thing.get(key) for key in keys) for thing in things]
        assert len(named) == len(set(named)), named

    docs = chart.rendered(name)
    assert len({(doc["kind"], doc["metadata"]["name"]) for doc in docs}) == len(docs)
    for _, spec in pod_specs(docs):
        once(spec.get("volumes", []), "name")
        once(spec.get("topologySpreadConstraints", []), "topologyKey", "whenUnsatisfiable")
        for container in spec["containers"]:
            once(container.get("env", []), "name")
            once(container.get("ports", []), "containerPort", "protocol")
            once(container.get("volumeMounts", []), "mountPath")
    for document in docs:
        if document["kind"] == "Service":
            once(document["spec"]["ports"], "port", "protocol")


def test_openshift_may_choose_the_user():
    ours = {"runAsUser": None, "runAsGroup": None, "fsGroup": None}
    spec = chart.deployment(chart.render({**URL, "podSecurityContext": ours}))["spec"]["template"]["spec"]
    assert spec["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}


@pytest.mark.parametrize("name", chart.SETS)
def test_a_rollout_never_goes_below_what_serves(name):
    spec = chart.deployment(chart.rendered(name))["spec"]
    assert spec["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    pod = spec["template"]["spec"]
    (server,) = pod["containers"]
    assert server["livenessProbe"]["httpGet"]["path"] == "/livez", "a liveness probe that asks Redis would restart all at once"
    assert server["startupProbe"]["httpGet"]["path"] == "/livez", "a start without Redis must not be a crash loop"
    assert server["readinessProbe"]["httpGet"]["path"] == "/readyz"
    # The server repeats for redis.retry_seconds (3) before it says no.
    assert server["readinessProbe"]["timeoutSeconds"] > 3


def test_selectors_are_only_what_never_changes():
    """A selector cannot be changed: none may hold a version or a label of the user's."""
    wanted = {"app.kubernetes.io/name", "app.kubernetes.io/instance", "app.kubernetes.io/component"}
    for name in ("everything", "trial"):
        for document in chart.rendered(name):
            if document["kind"] in ("Deployment", "StatefulSet", "PodDisruptionBudget", "ServiceMonitor"):
                assert set(document["spec"]["selector"]["matchLabels"]) == wanted
            if document["kind"] == "Service":
                assert set(document["spec"]["selector"]) == wanted


def test_no_selector_takes_a_pod_of_another_component():
    docs = chart.rendered("trial")
    labels = {
        name: document["spec"]["template"]["metadata"]["labels"]
        for document in docs
        if document["kind"] in ("Deployment", "StatefulSet")
        for name in [document["metadata"]["name"]]
    }
    service = chart.named(docs, "Service", "trial-mcp-messaging")["spec"]["selector"]
    assert [name for name, have in labels.items() if service.items() <= have.items()] == ["trial-mcp-messaging"]


def test_common_labels_are_everywhere():
    for document in chart.rendered("everything"):
        assert document["metadata"]["labels"]["example.com/cost-center"] == "42", document["kind"]
        assert document["metadata"]["annotations"]["example.com/contact"], document["kind"]
    template = chart.deployment(chart.rendered("everything"))["spec"]["template"]["metadata"]
    assert template["labels"]["example.com/cost-center"] == "42" and template["labels"]["team"] == "platform"


def env(docs):
    names = [item["name"] for item in chart.container(docs)["env"]]
    assert len(names) == len(set(names)), "a name given twice fails a server-side apply"
    return {item["name"]: item for item in chart.container(docs)["env"]}


def test_extra_environment_wins_and_is_given_once():
    values = {**URL, "extraEnv": {"MCP_SERVER_PORT": 8123, "BIG": 1000000, "REDIS_URL": {"valueFrom": {"secretKeyRef": {"name": "a", "key": "b"}}}}}
    found = env(chart.render(values))
    assert found["REDIS_URL"]["valueFrom"]["secretKeyRef"]["name"] == "a"
    assert found["BIG"]["value"] == "1000000", "no exponent"
    # The hook keeps its own user.
    docs = chart.render({**values, "migrate": {"enabled": True, "redis": {"existingSecret": "other"}}})
    (migrate,) = chart.named(docs, "Job", "-migrate")["spec"]["template"]["spec"]["containers"]
    hook = {item["name"]: item for item in migrate["env"]}
    assert hook["REDIS_URL"]["valueFrom"]["secretKeyRef"]["name"] == "other" and hook["BIG"]["value"] == "1000000"


def test_a_password_is_named_after_it_is_there():
    """Kubernetes puts $(NAME) in only where NAME stands before."""
    names = [item["name"] for item in chart.container(chart.rendered("everything"))["env"]]
    assert names.index("REDIS_PASSWORD") < names.index("REDIS_URL")
    assert names.index("K8S_POD_NAME") < names.index("OTEL_RESOURCE_ATTRIBUTES")


@pytest.mark.parametrize("name", chart.SETS)
def test_a_password_stands_only_in_a_secret(name):
    for document in chart.rendered(name):
        if document["kind"] != "Secret":
            assert "secret@" not in yaml.safe_dump(document), document["kind"]


def test_another_configuration_makes_new_pods():
    def annotations(values):
        return chart.deployment(chart.render(values))["spec"]["template"]["metadata"]["annotations"]

    first = annotations(URL)
    assert annotations(URL) == first
    assert annotations({**URL, "config": {"messaging": {"ttl_seconds": 60}}}) != first
    assert annotations({"redis": {"url": "redis://other"}}) != first


def test_the_hook_has_what_it_needs_before_anything_else_is_there():
    docs = chart.rendered("restricted")
    hooks = [doc for doc in docs if "pre-install" in doc["metadata"].get("annotations", {}).get("helm.sh/hook", "")]
    by_kind = {doc["kind"]: doc for doc in hooks}
    assert set(by_kind) == {"Job", "ConfigMap", "ServiceAccount", "NetworkPolicy"}
    job = by_kind["Job"]
    spec = job["spec"]["template"]["spec"]
    assert spec["serviceAccountName"] == by_kind["ServiceAccount"]["metadata"]["name"]
    assert spec["volumes"][0]["configMap"]["name"] == by_kind["ConfigMap"]["metadata"]["name"]
    selector = by_kind["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"]
    assert selector.items() <= job["spec"]["template"]["metadata"]["labels"].items()
    weight = {kind: int(doc["metadata"]["annotations"]["helm.sh/hook-weight"]) for kind, doc in by_kind.items()}
    assert all(weight[kind] < weight["Job"] for kind in weight if kind != "Job")
    # Other credentials than the servers'.
    (migrate,) = spec["containers"]
    (source,) = [item for item in migrate["env"] if item["name"] == "REDIS_URL"]
    assert source["valueFrom"]["secretKeyRef"]["name"] == "mailbox-redis-migrate"
    assert env(docs)["REDIS_URL"]["valueFrom"]["secretKeyRef"]["name"] == "mailbox-redis"


def ports(rule):
    return {port["port"] for port in rule.get("ports", [])}


def egress(name, policy=""):
    return [ports(rule) for rule in chart.named(chart.rendered(name), "NetworkPolicy", policy)["spec"]["egress"]]


def test_the_network_policy_lets_out_only_what_is_needed():
    assert egress("minimal") == [{53}, {6379}]
    assert egress("sentinel") == [{53}, {26379, 6379}]
    assert egress("cluster-tls") == [{53}, {6379}]
    # The last is extraEgress, which names no port.
    assert egress("everything", "everything-mcp-messaging") == [{53}, {6380}, {4317}, set()]
    assert egress("everything", "-migrate") == [{53}, {6380}, set()], "the hook sends no traces"
    assert egress("gateway") == [{53}, {6379, 26379}, {443}]
    odd = {"redis": {"url": "redis://u:p:1@[fd00::1]:7000?node=b:7001"}}
    (redis,) = [ports(rule) for rule in chart.named(chart.render(odd), "NetworkPolicy")["spec"]["egress"]][1:]
    assert {7000, 7001} <= redis


def test_the_network_policy_lets_in_who_must_come_in():
    def peers(name, port):
        rules = chart.named(chart.rendered(name), "NetworkPolicy", f"{name}-mcp-messaging" if name != "gateway" else "mcp-server")["spec"]["ingress"]
        return [peer for rule in rules if port in ports(rule) for peer in rule["from"]]

    def namespaces(found):
        return {peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"] for peer in found if "namespaceSelector" in peer}

    assert namespaces(peers("minimal", "http")) == set()
    assert namespaces(peers("everything", "http")) == {"ingress-nginx", "gateways"}
    assert namespaces(peers("gateway", "http")) == {"projectcontour"}
    assert namespaces(peers("minimal", "ops")) == {"monitoring"}
    assert {"podSelector": {}} not in peers("restricted", "http"), "networkPolicy.from replaces the default"


def test_a_proxy_holds_the_longest_call():
    annotations = chart.named(chart.rendered("everything"), "Ingress")["metadata"]["annotations"]
    # ci/everything-values.yaml says max_wait_seconds 240.
    assert annotations["nginx.ingress.kubernetes.io/proxy-read-timeout"] == "270"
    assert annotations["nginx.ingress.kubernetes.io/proxy-buffering"] == "off"
    assert annotations["nginx.ingress.kubernetes.io/proxy-body-size"] == "1048576"
    assert annotations["cert-manager.io/cluster-issuer"] == "letsencrypt"
    own = chart.render({**URL, "host": "m", "ingress": {"enabled": True, "annotations": {"nginx.ingress.kubernetes.io/proxy-read-timeout": "9"}}})
    assert chart.named(own, "Ingress")["metadata"]["annotations"]["nginx.ingress.kubernetes.io/proxy-read-timeout"] == "9"


def test_metrics_and_probes_are_not_on_the_public_way():
    """/metrics is on a port of its own, which neither Ingress, route nor a LoadBalancer reaches."""
    for name in ("everything", "gateway"):
        docs = chart.rendered(name)
        assert all(path["path"] == "/mcp" and path["backend"]["service"]["port"] == {"name": "http"}
                   for rule in chart.named(docs, "Ingress")["spec"]["rules"] for path in rule["http"]["paths"])
    assert [port["name"] for port in chart.named(chart.rendered("gateway"), "Service")["spec"]["ports"]] == ["http"]


def test_an_autoscaler_owns_the_number_of_replicas():
    for name in ("everything", "gateway"):
        assert "replicas" not in chart.deployment(chart.rendered(name))["spec"], "an upgrade would undo the scaling"
    metrics = chart.named(chart.rendered("everything"), "HorizontalPodAutoscaler")["spec"]["metrics"]
    assert [metric["type"] for metric in metrics] == ["ContainerResource", "Pods"]
    assert metrics[1]["pods"]["metric"]["name"] == "mcp_messaging_waiters"
    behavior = chart.named(chart.rendered("everything"), "HorizontalPodAutoscaler")["spec"]["behavior"]
    assert behavior["scaleUp"]["stabilizationWindowSeconds"] == 0 and behavior["scaleDown"]["stabilizationWindowSeconds"] == 600
    scaled = chart.named(chart.rendered("gateway"), "ScaledObject")["spec"]
    (_, waiters) = scaled["triggers"]
    assert 'namespace="mail",pod=~"mcp-server-' in waiters["metadata"]["query"]
    assert waiters["authenticationRef"]["name"] == "prometheus"
    assert scaled["advanced"]["horizontalPodAutoscalerConfig"]["behavior"] == behavior
    # A Prometheus that knows nothing of the servers is no reason to take them away.
    assert waiters["metadata"]["ignoreNullValues"] == "false" and scaled["fallback"]["behavior"] == "currentReplicasIfHigher"


def test_a_stopping_pod_holds_itself():
    def config(docs):
        return tomllib.loads(chart.named(docs, "ConfigMap")["data"]["config.toml"])

    assert config(chart.rendered("minimal"))["http"]["drain_seconds"] == 5
    assert config(chart.render({**URL, "drain": {"delaySeconds": 0}}))["http"]["drain_seconds"] == 0
    assert "lifecycle" not in chart.container(chart.rendered("minimal"))


def test_where_the_server_ends_tls_all_that_calls_it_speaks_it():
    values = {
        **URL, "host": "m", "ingress": {"enabled": True}, "redis": {"url": "redis://h", "caSecret": "authority"},
        "config": {"http": {"tls_certificate_file": "/tls/tls.crt", "tls_key_file": "/tls/tls.key"}},
    }
    for more, scheme in (({}, "https"), ({"config": {}}, "http")):
        docs = chart.render({**values, **more})
        ports = {port["name"]: port["appProtocol"] for port in chart.named(docs, "Service")["spec"]["ports"]}
        assert ports == {"http": scheme, "ops": "http"}, "probes and metrics stay plain"
        annotations = chart.named(docs, "Ingress")["metadata"]["annotations"]
        assert annotations["nginx.ingress.kubernetes.io/backend-protocol"] == scheme.upper()
        pod = chart.named(docs, "Pod", "-test-doctor")["spec"]
        (doctor,) = pod["containers"]
        assert f"--url={scheme}://rel-mcp-messaging:8123/mcp" in doctor["args"]
        assert {"name": "SSL_CERT_FILE", "value": "/etc/mcp-messaging/ca/ca.crt"} in doctor["env"], "it trusts whom the servers trust"
        assert [volume["name"] for volume in pod["volumes"]] == ["ca"] and doctor["volumeMounts"][0]["name"] == "ca"


def test_what_a_server_may_hold_fits_into_its_memory():
    """docs/performance.md: a waiting call takes 18.9 KB. Besides come requests held, and answers that nobody takes."""
    docs = chart.rendered("minimal")
    limit = int(chart.container(docs)["resources"]["limits"]["memory"].removesuffix("Mi")) * 2**20
    ours = tomllib.loads(chart.named(docs, "ConfigMap")["data"]["config.toml"])
    with open(chart.ROOT / "deploy" / "config" / "default.toml", "rb") as file:
        defaults = tomllib.load(file)
    settings = {section: defaults[section] | ours.get(section, {}) for section in defaults}
    waiting = settings["limits"]["replica_waiters"] * 18_900
    requests = settings["http"]["memory_bytes"]
    answers = settings["http"]["stalled_responses"] * settings["limits"]["fetch_bytes"]
    assert waiting < limit / 2
    assert waiting + requests + answers < limit * 0.8
