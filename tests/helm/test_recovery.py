"""What docs/operations.md says of a Redis that comes back without its data, or with those of an earlier day."""

import shutil
import time

import chart
from pods import Pod
from processes import Redis, call, free_port, until


def refused(port, key):
    """Whether this key is not let in."""
    try:
        call(port, "get_messages", {}, key=key)
    except AssertionError as error:
        assert "401" in str(error), error
        return True
    return False


def texts(port, key):
    return [(message["text"], message["redelivered"]) for message in call(port, "get_messages", {}, key=key)["messages"]]


def state(port, key, message):
    (known,) = call(port, "message_status", {"message_ids": [message]}, key=key)["messages"]
    return known["state"]


def test_an_earlier_state_brings_back_mail_that_was_read_and_keys_that_were_revoked(tmp_path):
    port, backup = free_port(), tmp_path / "backup.rdb"

    def server(folder):
        return Redis(tmp_path / folder, port=port)

    with server("today") as redis:
        pod = Pod(chart.render({"redis": {"url": f"redis://127.0.0.1:{port}"}}), tmp_path / "pod")
        try:
            pod.until_ready()
            alice, bob, thief = pod.key("alice"), pod.key("bob"), pod.key("thief")
            ids = {}

            def send(text, ttl=300):
                (result,) = call(pod.port, "send_message", {"recipient_id": "bob", "message": text, "ttl_seconds": ttl}, key=alice)["results"]
                ids[text] = result["message_id"]

            send("read since")
            send("short", ttl=2)
            redis.ask("SAVE")
            shutil.copy(tmp_path / "today" / "dump.rdb", backup)
            # What the backup does not know: mail was read, other mail was sent, a key was taken back and another made.
            assert texts(pod.port, bob) == [("read since", False), ("short", False)]
            until(lambda: state(pod.port, alice, ids["read since"]) == "acknowledged", "the acknowledgement is written")
            send("after the backup")
            config = pod.container["args"][-1]
            assert pod.exec("/mcp-messaging", "--config", config, "keys", "revoke", "--client", "thief").returncode == 0
            until(lambda: refused(pod.port, thief), "the revocation is heard of", 12)
            later = pod.key("later")
            redis.process.kill()
            redis.process.wait()
            time.sleep(2.5)  # the short one's life goes on meanwhile
            (tmp_path / "restored").mkdir()
            shutil.copy(backup, tmp_path / "restored" / "dump.rdb")
            with server("restored"):
                until(lambda: pod.ready, "it serves again, without a restart", 40)
                # Read mail comes again, and nothing marks it but its id; what expired meanwhile does not; what came after is gone.
                messages = call(pod.port, "get_messages", {}, key=bob)["messages"]
                assert [(message["message_id"], message["redelivered"]) for message in messages] == [(ids["read since"], False)]
                assert state(pod.port, alice, ids["after the backup"]) == "unknown"
                # A revocation since is forgotten. A key made since is good, because its MAC is, but in no list.
                until(lambda: not refused(pod.port, thief), "the revoked key is good again", 12)
                assert not refused(pod.port, later)
                listed = pod.exec("/mcp-messaging", "--config", config, "keys", "list").stdout
                assert "thief" in listed and "later" not in listed, listed
            # An empty one: the same of keys, and no mail at all.
            with server("empty"):
                until(lambda: pod.ready, "it serves again", 40)
                until(lambda: not refused(pod.port, thief), "nothing is known of revocations", 12)
                assert texts(pod.port, bob) == [] and pod.restarts == 0
        finally:
            pod.end()


def test_keys_that_were_revoked_can_be_refused_without_redis(tmp_path):
    """What to do then: the ids of the keys, or another master key."""
    with Redis(tmp_path / "redis") as redis:
        values = {"redis": {"url": f"redis://127.0.0.1:{redis.port}"}}
        pod = Pod(chart.render(values), tmp_path / "first")
        try:
            good, thief = pod.until_ready().key("good"), pod.key("thief")
            listed = pod.exec("/mcp-messaging", "--config", pod.container["args"][-1], "keys", "list").stdout
        finally:
            pod.end()
        (number,) = [line.split()[0] for line in listed.splitlines() if line.endswith(" thief")]
        pod = Pod(chart.render({**values, "config": {"auth": {"revoked_keys": [number]}}}), tmp_path / "second")
        try:
            pod.until_ready()
            assert refused(pod.port, thief) and not refused(pod.port, good)
        finally:
            pod.end()
        other = {"mailbox-keys": {"master-keys": f"m2:{'A' * 43}"}}
        pod = Pod(chart.render(values), tmp_path / "third", other)
        try:
            pod.until_ready()
            assert refused(pod.port, thief) and refused(pod.port, good) and not refused(pod.port, pod.key("good"))
        finally:
            pod.end()
