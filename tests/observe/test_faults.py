"""Real faults, and what Prometheus shows of them: the panel or the alert that the runbook sends its reader to.

The expressions are the shipped ones; only `for` is not waited for (rules_test.yml does that).
"""

import contextlib
import http.client
import os
import pathlib
import resource
import signal
import time

import pytest

import check_dashboards
import generate
from installation import alerts, until
from traffic import conversation


def shown(installation, board, title, holds, target=0, within=45):
    """Waits until a panel shows something of which `holds(labels, value)` is true."""
    panels = [panel for panel in check_dashboards.panels(generate.BOARDS[board]) if panel.get("title") == title]
    assert len(panels) == 1, f"{title}: {len(panels)} panels"
    variables = {variable["name"]: variable for variable in generate.BOARDS[board]["templating"]["list"]}
    expression = panels[0]["targets"][target]["expr"].replace("$__rate_interval", "10s")
    expression = check_dashboards.filled(expression, variables)
    return until(lambda: [each for each in installation.prometheus.query(expression) if holds(*each)], within)


def fires_in_prometheus(installation, name):
    """The alert is pending or firing, and its texts can be rendered."""

    def asked():
        answer = installation.prometheus.get("/api/v1/alerts")["data"]["alerts"]
        return [alert for alert in answer if alert["labels"]["alertname"] == name]

    alert = until(asked)[0]
    for text in alert["annotations"].values():
        assert text and "<error" not in text and "<no value>" not in text, text


def instance(replica):
    return f"127.0.0.1:{replica.port}"


@pytest.fixture
def healthy(install):
    """An installation at work, of which no alert holds."""
    installation = install()
    installation.repeat(conversation(installation))
    until(lambda: installation.prometheus.query('sum(rate(mcp_messaging_messages_total{event="delivered"}[10s])) > 0'))
    until(lambda: len(installation.prometheus.query("mcp_messaging_redis_connected == 1")) == 2)
    return installation


def test_a_healthy_installation_raises_nothing(healthy):
    time.sleep(5)
    assert healthy.holding() == []
    shown(healthy, "overview", "Replicas up", lambda _, value: value == 2)
    shown(healthy, "overview", "Sends taken in time", lambda _, value: value == 1)


def test_redis_stopped(healthy):
    healthy.redis.stop()
    shown(healthy, "overview", "Ready", lambda _, value: value == 0)
    shown(healthy, "replicas", "Not ready, by reason", lambda labels, value: labels["reason"] == "disconnected" and value == 2)
    shown(healthy, "redis", "Connected, by replica", lambda _, value: value == 0)
    assert healthy.fires("McpMessagingRedisUnreachable") == {"job": "mcp-messaging"}
    healthy.fires("McpMessagingErrors")
    shown(healthy, "overview", "Failed calls by replica", lambda _, value: value > 0)
    shown(healthy, "overview", "Trouble", lambda _, value: value > 0)
    shown(healthy, "redis", "Errors by kind", lambda labels, value: labels["kind"] in ("connection", "timeout") and value > 0)
    fires_in_prometheus(healthy, "McpMessagingRedisUnreachable")
    # And back.
    healthy.start_redis()
    shown(healthy, "overview", "Ready", lambda _, value: value == 1)
    shown(healthy, "redis", "Connections made, by replica", lambda _, value: value > 0)
    until(lambda: "McpMessagingRedisUnreachable" not in healthy.holding())


def test_redis_slow(healthy):
    """Redis pauses for 0.3 s again and again: every replica feels it, and none loses its connection."""
    healthy.repeat(lambda _: healthy.redis_says("CLIENT", "PAUSE", "300", "ALL"), every=0.5)
    healthy.fires("McpMessagingRedisSlow")
    for replica in healthy.replicas:
        shown(healthy, "overview", "Redis calls by replica (p99)", lambda labels, value, replica=replica: labels["instance"] == instance(replica) and value > 0.1)
    shown(healthy, "redis", "Function latency, 99th percentile", lambda labels, value: labels["function"] == "mb1_send" and value > 0.1)
    assert "McpMessagingRedisUnreachable" not in healthy.holding()
    fires_in_prometheus(healthy, "McpMessagingRedisSlow")


def test_one_replica_is_slow(healthy):
    """Stopped again and again in the midst of its calls, it falls behind alone: the panels name it."""
    slow = healthy.replicas[1].process

    def stumble(_):
        slow.send(signal.SIGSTOP)
        time.sleep(0.2)
        slow.send(signal.SIGCONT)

    healthy.repeat(stumble, every=0.01)
    for _ in range(4):
        healthy.repeat(lambda number: healthy.replicas[1].call("get_messages", client_id=f"poller-{number % 8}"), every=0)
    (labels, _) = shown(healthy, "overview", "Redis calls by replica (p99)", lambda _, value: value > 0.1)[0]
    assert labels["instance"] == instance(healthy.replicas[1])
    (others,) = [
        value
        for labels, value in shown(healthy, "overview", "Redis calls by replica (p99)", lambda *_: True)
        if labels["instance"] == instance(healthy.replicas[0])
    ]
    assert others < 0.1


def test_a_replica_is_killed_and_then_all(healthy):
    healthy.replicas[1].process.stop(signal.SIGKILL)
    assert healthy.fires("McpMessagingReplicaDown")["instance"] == instance(healthy.replicas[1])
    shown(healthy, "overview", "Replicas up", lambda _, value: value == 1)
    shown(healthy, "replicas", "Up", lambda labels, value: labels["instance"] == instance(healthy.replicas[1]) and value == 0)
    assert "McpMessagingDown" not in healthy.holding()
    fires_in_prometheus(healthy, "McpMessagingReplicaDown")
    healthy.replicas[0].process.stop()
    healthy.fires("McpMessagingDown")


def test_one_replica_loses_its_connection_again_and_again(healthy):
    """The other goes on, and the alert names the one."""

    def cut(_):
        for port in open_ports(healthy.replicas[1].process.popen.pid):
            healthy.redis_says("CLIENT", "KILL", "ADDR", f"127.0.0.1:{port}")

    healthy.repeat(cut, every=0.05)
    assert healthy.fires("McpMessagingRedisReconnects")["instance"] == instance(healthy.replicas[1])
    (labels, _) = shown(healthy, "redis", "Connections made, by replica", lambda _, value: value > 3)[0]
    assert labels["instance"] == instance(healthy.replicas[1])


def open_ports(pid):
    """Local ports of a process' TCP connections."""
    links = []
    for descriptor in pathlib.Path(f"/proc/{pid}/fd").iterdir():
        try:
            links.append(os.readlink(descriptor))
        except OSError:
            continue
    sockets = {link[8:-1] for link in links if link.startswith("socket:[")}
    lines = [line.split() for line in pathlib.Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    return {int(line[1].split(":")[1], 16) for line in lines if line[9] in sockets and line[3] == "01"}


def test_a_client_that_never_reads(install):
    installation = install()
    writer = installation.replicas[0]
    installation.repeat(lambda number: writer.call("send_message", sender_id="writer", recipient_id="silent", message=f"message {number}"))
    installation.fires("McpMessagingUnread")
    shown(installation, "delivery", "Unread: accepted and not delivered", lambda _, value: value > 1)
    shown(installation, "overview", "Messages queued", lambda _, value: value > 50)
    shown(installation, "overview", "Oldest message", lambda _, value: value > 5)
    shown(installation, "delivery", "Inboxes with messages", lambda _, value: value == 1)
    assert set(installation.holding()) == {"McpMessagingUnread"}
    fires_in_prometheus(installation, "McpMessagingUnread")


def test_an_inbox_fills_and_its_senders_are_refused(install):
    installation = install(MCP_MESSAGING__LIMITS__INBOX_MESSAGES="10")
    writer = installation.replicas[0]
    for number in range(9):
        writer.call("send_message", sender_id="writer", recipient_id="full", message=f"first {number}")
    # Seen before anything is refused.
    shown(installation, "overview", "Fullest inbox", lambda _, value: value == 0.9)
    shown(installation, "delivery", "Fullest inbox, share of its limit", lambda _, value: value == 0.9)
    fires_in_prometheus(installation, "McpMessagingInboxNearLimit")
    installation.repeat(lambda number: writer.call("send_message", sender_id="writer", recipient_id="full", message=f"message {number}"))
    installation.fires("McpMessagingRefusals")
    shown(installation, "delivery", "Refused, share of sends", lambda _, value: value > 0.5)
    shown(installation, "overview", "Trouble", lambda _, value: value > 1, target=1)
    shown(installation, "delivery", "Refusals by reason", lambda labels, value: labels["reason"] == "inbox_full" and value > 1)
    # The sender's fault, not ours.
    assert not {"McpMessagingErrors", "McpMessagingRedisSlow", "McpMessagingRedisUnreachable"} & set(installation.holding())
    fires_in_prometheus(installation, "McpMessagingRefusals")


def test_messages_that_expire(install):
    installation = install()
    replica = installation.replicas[0]

    def work(number):
        sender = f"writer-{number}"  # who never comes back to hear of it
        replica.call("send_message", sender_id=sender, recipient_id=f"gone-{number}", message="too late", ttl_seconds=1)

    installation.repeat(work)
    installation.fires("McpMessagingExpired")
    shown(installation, "delivery", "Expired", lambda _, value: value > 0)
    replica.call("send_message", sender_id="teller", recipient_id="gone", message="too late", ttl_seconds=1)
    installation.repeat(lambda _: replica.call("get_messages", client_id="teller"))
    shown(installation, "delivery", "Expired", lambda _, value: value > 0, target=1)
    fires_in_prometheus(installation, "McpMessagingExpired")


def test_mail_that_is_taken_and_never_confirmed(install):
    installation = install(MCP_MESSAGING__MESSAGING__MANUAL_LEASE_SECONDS="1")
    replica = installation.replicas[0]
    for _ in range(3):
        replica.call("send_message", sender_id="writer", recipient_id="careless", message="for ever")
    installation.repeat(lambda _: replica.call("get_messages", client_id="careless", ack="manual"), every=0.3)
    installation.fires("McpMessagingRedelivered")
    shown(installation, "delivery", "Handed out and not acknowledged", lambda _, value: value > 0)
    shown(installation, "delivery", "Redelivered, share of deliveries", lambda _, value: value > 0.5)
    fires_in_prometheus(installation, "McpMessagingRedelivered")


def test_a_rollout_that_is_stuck(healthy):
    """The new replica has a password that Redis does not know; the old ones go on."""
    url = f"redis://mailbox:wrong@127.0.0.1:{healthy.redis_port}/0"
    new = healthy.start_replica(ready=False, REDIS_URL=url)
    alert = healthy.fires("McpMessagingNotReady")
    assert (alert["instance"], alert["reason"]) == (instance(new), "denied")
    shown(healthy, "replicas", "Not ready, by reason", lambda labels, value: labels["reason"] == "denied" and value == 1)
    shown(healthy, "replicas", "Ready, by replica", lambda labels, value: labels["instance"] == instance(new) and value == 0)
    shown(healthy, "overview", "Ready", lambda _, value: 0.6 < value < 0.7)
    assert "McpMessagingErrors" not in healthy.holding()
    fires_in_prometheus(healthy, "McpMessagingNotReady")


def test_a_redis_that_is_full(healthy):
    healthy.redis_says("CONFIG", "SET", "maxmemory", "1")
    assert healthy.fires("McpMessagingRedisErrors")["kind"] == "memory"
    shown(healthy, "redis", "Errors by kind", lambda labels, value: labels["kind"] == "memory" and value > 0)
    shown(healthy, "overview", "Trouble", lambda _, value: value > 0)
    fires_in_prometheus(healthy, "McpMessagingRedisErrors")


def test_the_replica_that_counts_is_gone_and_another_one_counts(install):
    installation = install()
    installation.replicas[0].call("send_message", sender_id="writer", recipient_id="silent", message="a message")
    shown(installation, "overview", "Messages queued", lambda _, value: value == 1)
    (labels, _), *others = installation.prometheus.query("mcp_messaging_sample_timestamp_seconds")
    assert not others, "one alone counts"
    for replica in installation.replicas:
        if instance(replica) == labels["instance"]:
            replica.process.stop(signal.SIGKILL)
    until(lambda: [each for each, _ in installation.prometheus.query("mcp_messaging_sample_timestamp_seconds") if each["instance"] != labels["instance"]])
    shown(installation, "overview", "Messages queued", lambda _, value: value == 1)
    shown(installation, "overview", "Counted", lambda _, value: value < 10)


def test_nobody_counts(install):
    """It is switched off: the numbers are missing, and that is said."""
    installation = install(replicas=1, MCP_MESSAGING__OPS__SAMPLE_SECONDS="0")
    installation.fires("McpMessagingNotCounted")


def test_a_replica_near_its_limit_of_connections(install):
    installation = install(replicas=1, MCP_MESSAGING__HTTP__MAX_CONNECTIONS="20", MCP_MESSAGING__HTTP__WORKERS="1")
    replica = installation.replicas[0]
    with contextlib.ExitStack() as stack:
        for _ in range(17):
            connection = http.client.HTTPConnection("127.0.0.1", replica.port, timeout=5)
            connection.request("GET", "/livez")  # or it would be closed for asking nothing
            connection.getresponse().read()
            stack.enter_context(contextlib.closing(connection))
        assert installation.fires("McpMessagingConnectionsNearLimit")["instance"] == instance(replica)
        shown(installation, "replicas", "Connections, share of the limit", lambda _, value: value > 0.8)


def test_a_replica_near_its_file_limit(install):
    installation = install(replicas=1)
    replica = installation.replicas[0]
    pid = replica.process.popen.pid
    used = len(os.listdir(f"/proc/{pid}/fd"))
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (used + 5, used + 5))
    assert installation.fires("McpMessagingFilesNearLimit")["instance"] == instance(replica)
    shown(installation, "replicas", "Open files, share of the limit", lambda _, value: value > 0.8)


def test_waiters_that_no_wake_up_reaches(install):
    """A Redis that does not publish: waiters get their mail from the safety poll, about 20 s late."""
    installation = install(redis=("--rename-command", "PUBLISH", ""))
    here, there = installation.replicas
    waiting = there.behind("get_messages", client_id="sleeper", wait_seconds=40, timeout=60)
    until(lambda: installation.prometheus.query("sum(mcp_messaging_waiters) == 1"))
    here.call("send_message", sender_id="writer", recipient_id="sleeper", message="are you awake?")
    assert installation.fires("McpMessagingMissedWakeups")["instance"] == instance(there)
    waiting.join()
    shown(installation, "overview", "Missed wake-ups", lambda _, value: value >= 1)
    shown(installation, "redis", "Missed wake-ups, by replica", lambda labels, value: labels["instance"] == instance(there) and value > 0)
    fires_in_prometheus(installation, "McpMessagingMissedWakeups")


def test_every_alert_can_be_asked(healthy):
    """No expression of an alert is an error to a real Prometheus."""
    rules = healthy.prometheus.get("/api/v1/rules")["data"]["groups"]
    loaded = [rule for group in rules for rule in group["rules"]]
    assert {rule["name"] for rule in loaded if rule["type"] == "alerting"} == set(alerts())
    until(lambda: all(rule["health"] != "unknown" for group in healthy.prometheus.get("/api/v1/rules")["data"]["groups"] for rule in group["rules"]))
    rules = healthy.prometheus.get("/api/v1/rules")["data"]["groups"]
    assert [rule for group in rules for rule in group["rules"] if rule["health"] != "ok"] == []
