"""What a cluster relies on, with the rendered Deployment as local processes."""

import contextlib
import http.client
import json
import re
import subprocess
import threading
import time

import pytest

import chart
from load import Load, assert_clean
from pods import MASTER_KEYS, Pod, Service
from processes import BINARY, OLD_BINARY, Redis, bearing, call, free_port, get, until
from test_upgrade import PREVIOUS


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
    key = pod.key("alice")
    for name in ("mail.example.com", "rel-mcp-messaging", "rel-mcp-messaging.mail.svc.cluster.local:8123", "mail.internal"):
        call(pod.port, "get_messages", {}, host=name, key=key)
    with pytest.raises(AssertionError, match="403"):
        call(pod.port, "get_messages", {}, host="evil.example", key=key)
    # Metrics and probes have a port of their own.
    assert get(pod.port, "/metrics")[0] == 404 and get(pod.port, "/readyz")[0] == 404
    status, metrics = get(pod.ops, "/metrics")
    assert status == 200 and "mcp_messaging_waiters" in metrics, "the autoscalers ask for it"
    assert pod.restarts == 0


def test_by_default_a_pod_asks_for_keys_and_the_command_of_the_notes_makes_them(redis, started):
    pod = started(manifests(redis)).until_ready()
    for key in (None, "mbk_x.y"):
        with pytest.raises(AssertionError, match="401"):
            call(pod.port, "get_messages", {"client_id": "alice"}, key=key)
    notes = chart.notes({"redis": {"url": f"redis://127.0.0.1:{redis.port}"}})
    (line,) = [line.strip() for line in notes.splitlines() if "keys issue" in line]
    words = line.split()
    assert words[:8] == "kubectl -n mail exec deployment/rel-mcp-messaging -c server --".split() and words[6] == pod.container["name"]
    done = pod.exec(*words[8:])
    assert done.returncode == 0, done.stderr
    assert "in place of URL" in done.stderr and "0.0.0.0" not in done.stderr, done.stderr
    alice, bob = done.stdout.strip(), pod.key("bob")
    call(pod.port, "send_message", {"recipient_id": "bob", "message": "hi"}, key=alice)
    (message,) = call(pod.port, "get_messages", {}, key=bob)["messages"]
    assert (message["from"], message["verified_sender"]) == ("alice", True)
    # What was issued is known, and can be taken back, in the same way.
    listed = pod.exec(*words[8:11], "keys", "list").stdout
    assert listed.count("mailbox:read") == 2 and alice not in listed, listed
    assert pod.exec(*words[8:11], "keys", "revoke", "--client", "alice").returncode == 0

    def refused():
        try:
            call(pod.port, "get_messages", {}, key=alice)
        except AssertionError as error:
            return "401" in str(error)

    until(refused, "the revocation is heard of", 12)


def test_a_key_made_as_the_refusal_says_is_one(tmp_path):
    """Where no cluster can be asked, the chart tells how to make a master key without our binary."""
    done = chart.template("4", "--set", "redis.url=redis://h")
    (line,) = [line.strip() for line in done.stderr.splitlines() if "create secret generic" in line]
    made = re.search(r'--from-literal=master-keys="(.*)"$', line)[1]
    for _ in range(20):  # whatever characters come by chance
        key = subprocess.run(["bash", "-c", f'printf %s "{made}"'], capture_output=True, text=True, check=True).stdout
        issued(key)


def issued(master, client="load.*"):
    """A key made beside the master keys alone, before any server asks for it."""
    done = subprocess.run(
        [BINARY, "keys", "issue", "--client", client], capture_output=True, text=True, timeout=30,
        env={"MCP_MESSAGING__AUTH__MODE": "key", "MCP_MESSAGING__AUTH__MASTER_KEYS": master},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


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
        call(pod.port, "send_message", {"recipient_id": "b", "message": "x"}, key=pod.key("a"))
    assert pod.restarts == 0 and pod.process.child.poll() is None


def test_a_redis_that_goes_takes_the_pod_out_and_brings_it_back(tmp_path, started):
    port = free_port()
    with Redis(tmp_path / "redis", "--appendonly", "yes", port=port):
        pod = started(chart.render({"redis": {"url": f"redis://127.0.0.1:{port}"}})).until_ready()
        key = pod.key("b")
        call(pod.port, "send_message", {"recipient_id": "b", "message": "kept"}, key=key)
        time.sleep(1.2)  # appendfsync everysec
    until(lambda: not pod.ready, "readiness says no", 40)
    with Redis(tmp_path / "redis", "--appendonly", "yes", port=port):
        until(lambda: pod.ready, "readiness says yes again", 40)
        (message,) = call(pod.port, "get_messages", {}, key=key)["messages"]
    assert message["text"] == "kept" and pod.restarts == 0


@pytest.mark.parametrize("accept", ["application/json", "application/json, text/event-stream"])
def test_on_sigterm_readiness_goes_first_and_waiting_calls_are_answered(redis, started, accept):
    """As a stream and as plain JSON: a result that says what to do, not a cut connection. Who has it finds the pod not ready."""
    pod = started(manifests(redis, drain={"delaySeconds": 0}, config={"limits": {"principal_waits": 40}})).until_ready()
    answers, after, key = [], [], pod.key("w.*")

    def wait(n):
        connection = http.client.HTTPConnection("127.0.0.1", pod.port, timeout=60)
        tool, arguments = (
            ("get_messages", {"client_id": f"w.{n}", "wait_seconds": 50})
            if n % 2
            else ("send_message_and_wait", {"sender_id": f"w.{n}", "recipient_id": "nobody", "message": "?", "timeout": 50})
        )
        body = {"jsonrpc": "2.0", "id": n, "method": "tools/call", "params": {"name": tool, "arguments": arguments}}
        headers = {"Host": "localhost", "Content-Type": "application/json", "Accept": accept, **bearing(key)}
        connection.request("POST", "/mcp", json.dumps(body), headers)
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
        load = stack.enter_context(Load(service.port, pods[0].key("load.*")))
        until(lambda: len(load.accepted) > 50, "the load runs")
        service.remove(pods[0])
        assert pods[0].terminate() == 0, pods[0].process.said()
        until(lambda: len(load.accepted) > 150, "the load goes on")
        assert_clean(load.settle(), 150)


def roll(old, new, key, started):
    """For each old pod a new one is ready first (maxUnavailable 0, maxSurge 1), while agents with `key` talk through the Service."""
    spec = chart.deployment(new)["spec"]
    assert spec["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    pods = [started(old, binary=OLD_BINARY) for _ in range(spec["replicas"])]
    with Service(lag=2) as service, contextlib.ExitStack() as stack:
        for pod in pods:
            service.add(pod.until_ready())
        load = stack.enter_context(Load(service.port, key))
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


def test_a_rolling_update_shows_no_client_an_error(redis, started):
    """Two revisions side by side."""
    roll(manifests(redis), manifests(redis, config={"messaging": {"ttl_seconds": 400}}), issued(MASTER_KEYS), started)


@pytest.mark.parametrize("package", PREVIOUS, ids=lambda path: path.stem)
def test_an_upgrade_of_a_default_install_shows_no_client_an_error(package, redis, started):
    """From the chart before this one. Its default was to ask nobody: as docs/operations.md has it, the agents have their keys before."""
    values = ("--set", f"redis.url=redis://127.0.0.1:{redis.port}", "--set", "host=mail.example.com")
    done = chart.template("4", *values, chart=package)
    assert done.returncode == 0, done.stderr
    roll(chart.documents(done.stdout), manifests(redis), issued(MASTER_KEYS), started)
