"""What a cluster relies on, with the rendered Deployment as local processes."""

import contextlib
import http.client
import json
import threading
import time

import pytest

import chart
from load import Load, assert_clean
from pods import Pod, Service
from processes import OLD_BINARY, Redis, call, free_port, get, until


@pytest.fixture
def redis(tmp_path):
    with Redis(tmp_path / "redis", "--appendonly", "yes") as server:
        yield server


def manifests(redis, **values):
    return chart.render({"host": "mail.example.com", "redis": {"url": f"redis://127.0.0.1:{redis.port}"}, **values})


@pytest.fixture
def started(tmp_path):
    """Starts pods and ends what is left of them."""
    pods = []

    def start(docs, **more):
        pods.append(Pod(docs, tmp_path / f"pod-{len(pods)}", **more))
        return pods[-1]

    yield start
    for pod in pods:
        pod.end()


def test_a_pod_becomes_ready_and_serves_its_names(redis, started):
    pod = started(manifests(redis, allowedHosts=["mail.internal"])).until_ready()
    for name in ("mail.example.com", "rel-mcp-messaging", "rel-mcp-messaging.mail.svc.cluster.local:8123", "mail.internal"):
        call(pod.port, "get_messages", {"client_id": "a"}, host=name)
    with pytest.raises(AssertionError, match="40[0-9]"):
        call(pod.port, "get_messages", {"client_id": "a"}, host="evil.example")
    # Metrics and probes have a port of their own.
    assert get(pod.port, "/metrics")[0] == 404 and get(pod.port, "/readyz")[0] == 404
    status, metrics = get(pod.ops, "/metrics")
    assert status == 200 and "mcp_messaging_waiters" in metrics, "the autoscalers ask for it"
    assert pod.restarts == 0


def test_a_pod_without_redis_waits_for_it_and_is_not_restarted(tmp_path, started):
    port = free_port()
    docs = chart.render({"redis": {"url": f"redis://127.0.0.1:{port}"}})
    pod = started(docs)
    until(lambda: get(pod.ops, "/livez"), "the process is there")
    # Longer than liveness needs to give up on a pod: three periods of ten seconds.
    liveness = pod.container["livenessProbe"]
    end = time.monotonic() + liveness["periodSeconds"] * liveness["failureThreshold"] + 2
    while time.monotonic() < end:
        assert get(pod.ops, "/readyz")[0] == 503
        assert not pod.ready and pod.restarts == 0
        time.sleep(0.5)
    with Redis(tmp_path / "redis", port=port):
        pod.until_ready()
        call(pod.port, "send_message", {"sender_id": "a", "recipient_id": "b", "message": "x"})
    assert pod.restarts == 0 and pod.process.child.poll() is None


def test_a_redis_that_goes_takes_the_pod_out_and_brings_it_back(tmp_path, started):
    port = free_port()
    with Redis(tmp_path / "redis", "--appendonly", "yes", port=port):
        pod = started(chart.render({"redis": {"url": f"redis://127.0.0.1:{port}"}})).until_ready()
        call(pod.port, "send_message", {"sender_id": "a", "recipient_id": "b", "message": "kept"})
        time.sleep(1.2)  # appendfsync everysec
    until(lambda: not pod.ready, "readiness says no", 40)
    with Redis(tmp_path / "redis", "--appendonly", "yes", port=port):
        until(lambda: pod.ready, "readiness says yes again", 40)
        (message,) = call(pod.port, "get_messages", {"client_id": "b"})["messages"]
    assert message["text"] == "kept" and pod.restarts == 0


@pytest.mark.parametrize("accept", ["application/json", "application/json, text/event-stream"])
def test_on_sigterm_readiness_goes_first_and_waiting_calls_are_answered(redis, started, accept):
    """As a stream and as plain JSON: a result that says what to do, not a cut connection. Who has it finds the pod not ready."""
    pod = started(manifests(redis, drain={"delaySeconds": 0})).until_ready()
    answers, after = [], []

    def wait(n):
        connection = http.client.HTTPConnection("127.0.0.1", pod.port, timeout=60)
        tool, arguments = (
            ("get_messages", {"client_id": f"w{n}", "wait_seconds": 50})
            if n % 2
            else ("send_message_and_wait", {"sender_id": f"w{n}", "recipient_id": "nobody", "message": "?", "timeout": 50})
        )
        body = {"jsonrpc": "2.0", "id": n, "method": "tools/call", "params": {"name": tool, "arguments": arguments}}
        connection.request("POST", "/mcp", json.dumps(body), {"Host": "localhost", "Content-Type": "application/json", "Accept": accept})
        answer = connection.getresponse()
        text = answer.read().decode()  # raises when the stream is cut
        after.append((get(pod.ops, "/readyz") or ("nobody answers",))[0])
        data = [line[6:] for line in text.splitlines() if line.startswith("data: {")]
        answers.append((answer.status, json.loads(data[-1] if data else text)))

    threads = [threading.Thread(target=wait, args=(n,)) for n in range(40)]
    for thread in threads:
        thread.start()
    until(lambda: "mcp_messaging_waiters 40" in get(pod.ops, "/metrics")[1], "40 calls wait")
    code = pod.terminate()
    for thread in threads:
        thread.join(20)
    assert code == 0, pod.process.said()
    assert len(answers) == 40, f"{40 - len(answers)} clients got no answer"
    assert 200 not in after, "calls ended before readiness said no"
    for status, answer in answers:
        assert status == 200 and "result" in answer and not answer["result"].get("isError"), answer


def test_sigterm_under_load_loses_nothing(redis, started):
    """Of three servers one goes, as a node drain takes it: kube-proxy is late, nobody repeats, and the grace is the manifest's."""
    docs = manifests(redis, replicas=3)
    pods = [started(docs) for _ in range(chart.deployment(docs)["spec"]["replicas"])]
    with Service(lag=2) as service, contextlib.ExitStack() as stack:
        for pod in pods:
            service.add(pod.until_ready())
        load = stack.enter_context(Load(service.port))
        until(lambda: len(load.accepted) > 50, "the load runs")
        service.remove(pods[0])
        assert pods[0].terminate() == 0, pods[0].process.said()
        until(lambda: len(load.accepted) > 150, "the load goes on")
        assert_clean(load.settle(), 150)


def test_a_rolling_update_shows_no_client_an_error(redis, started):
    """Two revisions side by side: for each old pod a new one is ready first (maxUnavailable 0, maxSurge 1)."""
    old, new = manifests(redis), manifests(redis, config={"messaging": {"ttl_seconds": 400}})
    spec = chart.deployment(new)["spec"]
    assert spec["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    pods = [started(old, binary=OLD_BINARY) for _ in range(spec["replicas"])]
    with Service(lag=2) as service, contextlib.ExitStack() as stack:
        for pod in pods:
            service.add(pod.until_ready())
        load = stack.enter_context(Load(service.port))
        until(lambda: len(load.accepted) > 50, "the load runs")
        for leaving in pods:
            service.add(started(new).until_ready())
            service.remove(leaving)
            assert leaving.terminate() == 0, leaving.process.said()
        before = len(load.accepted)
        until(lambda: len(load.accepted) > before + 50, "the load goes on")
        assert_clean(load.settle(), 150)
        status, metrics = get(service.pods[0].ops, "/metrics")
        assert "mcp_messaging_missed_wakeups_total 0" in metrics
