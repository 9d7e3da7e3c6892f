"""The Redis users of docs/operations.md, with real servers: enough for every operation, and for nothing else."""

import contextlib
import re
import subprocess
import threading
import time

import pytest

import chart
import processes
from pods import MASTER_KEYS, Pod
from processes import BINARY, Redis, call, free_port, get, secret, until

ADMIN = ("--user", "admin", "--pass", "admin")
# Where keys are beside the point.
OPEN = {"auth": {"mode": "none"}}
DOCUMENT = chart.ROOT / "docs" / "operations.md"


def users(kind):
    """The lines of one block of the document, with the passwords of this test."""
    blocks = re.findall(r"<!-- acl: (\S+) -->\n+```text\n(.*?)```", DOCUMENT.read_text(), re.S)
    (block,) = [text for name, text in blocks if name == kind]
    lines = re.sub(r"\\\n\s*", "", block).strip().splitlines()
    assert all(line.startswith("user ") and ">CHANGE-ME" in line for line in lines), lines
    return [line.replace(">CHANGE-ME", ">pass-word") for line in lines]


def acl_file(folder, kind):
    path = folder / f"{kind}.acl"
    path.write_text("\n".join(["user default off", "user admin on >admin ~* &* +@all", *users(kind), ""]))
    return path


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    """A certificate authority of one's own and a server's certificate for 127.0.0.1."""
    folder = tmp_path_factory.mktemp("tls")

    def openssl(*words):
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True, timeout=60)

    new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")
    openssl("req", "-x509", *new, "-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=test authority")
    (folder / "ext").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    openssl("req", *new, "-keyout", "redis.key", "-out", "redis.csr", "-subj", "/CN=redis")
    openssl("x509", "-req", "-in", "redis.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "ext", "-out", "redis.crt")
    return folder


def tls(folder):
    files = ("--tls-cert-file", folder / "redis.crt", "--tls-key-file", folder / "redis.key", "--tls-ca-cert-file", folder / "ca.crt")
    return (*files, "--tls-auth-clients", "no", "--tls-replication", "yes", "--tls-cluster", "yes")


@contextlib.contextmanager
def single(tmp_path, authority):
    with Redis(tmp_path / "redis", "--appendonly", "yes", "--aclfile", acl_file(tmp_path, "single"), login=ADMIN) as redis:
        yield [redis], lambda user: f"redis://{user}:$(REDIS_PASSWORD)@127.0.0.1:{redis.port}", {}


@contextlib.contextmanager
def cluster_tls(tmp_path, authority):
    """Three primaries that speak TLS alone."""
    acl = acl_file(tmp_path, "cluster")
    cli = ("--tls", "--cacert", authority / "ca.crt")
    with contextlib.ExitStack() as stack:
        nodes = [
            stack.enter_context(Redis(
                tmp_path / f"node-{n}", *tls(authority), "--aclfile", acl, "--appendonly", "yes",
                "--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf", "--cluster-node-timeout", "5000",
                "--cluster-port", free_port(), login=ADMIN, tls=cli,
            ))
            for n in range(3)
        ]
        # By hand: redis-cli --cluster create knows no bus port that is not the port and 10,000.
        for n, node in enumerate(nodes):
            node.ask("CLUSTER", "ADDSLOTSRANGE", n * 5462, min(n * 5462 + 5461, 16383))
            node.ask("CLUSTER", "SET-CONFIG-EPOCH", n + 1)
        for node in nodes[1:]:
            bus = nodes[0].arguments[nodes[0].arguments.index("--cluster-port") + 1]
            node.ask("CLUSTER", "MEET", "127.0.0.1", nodes[0].port, bus)
        until(lambda: all("cluster_state:ok" in node.ask("CLUSTER", "INFO") for node in nodes), "the cluster is whole")
        until(lambda: all(len(node.ask("CLUSTER", "NODES").splitlines()) == 3 for node in nodes), "all know all")
        others = "&".join(f"node=127.0.0.1:{node.port}" for node in nodes[1:])
        trust = {"caSecret": "authority"}
        yield nodes, lambda user: f"rediss-cluster://{user}:$(REDIS_PASSWORD)@127.0.0.1:{nodes[0].port}?{others}", trust


@contextlib.contextmanager
def sentinel(tmp_path, authority):
    """A primary and one Sentinel, which has users of its own."""
    acl = acl_file(tmp_path, "single")
    with Redis(tmp_path / "redis", "--appendonly", "yes", "--aclfile", acl, login=ADMIN) as redis:
        config = tmp_path / "sentinel.conf"
        config.write_text(
            f"sentinel monitor mail 127.0.0.1 {redis.port} 1\nsentinel auth-user mail admin\nsentinel auth-pass mail admin\n"
            f"aclfile {acl_file(tmp_path, 'sentinel')}\n"
        )
        with Redis(tmp_path / "sentinel", login=ADMIN) as watch:
            watch.process.kill(), watch.process.wait()
            watch.process = subprocess.Popen(
                ["redis-server", config, "--sentinel", "--port", str(watch.port), "--bind", "127.0.0.1", "--dir", tmp_path / "sentinel"],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )
            until(lambda: str(redis.port) in watch.ask("SENTINEL", "get-master-addr-by-name", "mail", failing=True), "Sentinel knows the primary")
            query = "sentinelServiceName=mail&sentinelUsername=watch&sentinelPassword=pass-word"
            yield [redis, watch], lambda user: f"redis-sentinel://{user}:$(REDIS_PASSWORD)@127.0.0.1:{watch.port}/0?{query}", {}


KINDS = {"single": single, "cluster-tls": cluster_tls, "sentinel": sentinel}


def least_privilege(url, more):
    """Servers with one user, the hook with another: two Secrets of passwords, as a team has them."""
    return chart.render({
        "host": "mail.example.com",
        "redis": {"url": url("mailbox"), "existingSecret": "redis-mailbox", **more},
        "migrate": {"enabled": True, "redis": {"url": url("mailbox-migrate"), "existingSecret": "redis-migrate"}},
    })


class Job(Pod):
    """The migrate hook as a process."""

    def __init__(self, docs, folder, secrets):
        spec = chart.named(docs, "Job", "-migrate")["spec"]["template"]["spec"]
        (self.container,) = spec["containers"]
        self.spec, self.docs, self.folder, self.secrets, self.ops = spec, docs, folder, secrets, free_port()
        folder.mkdir(parents=True)
        for mount in self.container["volumeMounts"]:
            self.mount(mount)
        environment = self.resolve()
        self.done = subprocess.run(
            [BINARY, *map(self.local, self.container["args"])], env=environment, capture_output=True, text=True, timeout=60
        )

    def at_home(self, environment):
        return environment


def every_operation(one, other, key):
    """Calls that reach all functions of the store, on two servers. `key` is for t.*."""

    def call(port, tool, arguments):
        return processes.call(port, tool, arguments, key=key)

    call(one, "checkin_client", {"client_id": "t.x", "name": "X", "capabilities": "c"})
    heard = []

    def later(tool, arguments):
        thread = threading.Thread(target=lambda: heard.append(call(other, tool, arguments)))
        thread.start()
        time.sleep(1.5)  # long enough for the subscription and its probe
        return thread

    waiting = later("get_messages", {"client_id": "t.y", "wait_seconds": 20})
    call(one, "send_message", {"sender_id": "t.x", "recipient_id": "t.y", "message": "hi", "idempotency_key": "k"})
    waiting.join()
    assert [message["text"] for message in heard[-1]["messages"]] == ["hi"]
    asking = later("send_message_and_wait", {"sender_id": "t.y", "recipient_id": "t.x", "message": "?", "timeout": 20})
    question = call(one, "get_messages", {"client_id": "t.x", "ack": "manual", "wait_seconds": 5})
    named = question["messages"][0]["message_id"]
    call(one, "send_message", {"sender_id": "t.x", "recipient_id": "t.y", "message": "!", "in_reply_to": named})
    asking.join()
    assert heard[-1]["reply"]["text"] == "!"
    call(one, "get_messages", {"client_id": "t.x", "ack": "manual", "receipt": question["receipt"]})
    states = [message["state"] for message in call(other, "message_status", {"sender_id": "t.x"})["messages"]]
    assert len(states) == 2 and set(states) <= {"acknowledged", "delivered"}, states
    assert call(other, "list_clients", {})["clients"][0]["client_id"] == "t.x"
    for n in range(40):  # many slots
        call(one, "send_message", {"sender_id": "t.x", "recipient_id": f"t.r{n}", "message": "m"})
        assert call(other, "get_messages", {"client_id": f"t.r{n}"})["messages"]


def refused_by(redis):
    """What ACL LOG has: command or key, and user."""
    lines = redis.ask("ACL", "LOG").splitlines()
    return {(lines[at + 1], lines[lines.index("username", at) + 1]) for at, line in enumerate(lines) if line == "object"}


@pytest.mark.parametrize("kind", KINDS)
def test_least_privilege(kind, tmp_path, authority):
    secrets = {
        "redis-mailbox": {"password": "pass-word"},
        "redis-migrate": {"password": "pass-word"},
        "mailbox-keys": {"master-keys": MASTER_KEYS},
        "authority": {"ca.crt": (authority / "ca.crt").read_text()},
    }
    with KINDS[kind](tmp_path, authority) as (servers, url, more), contextlib.ExitStack() as stack:
        docs = least_privilege(url, more)
        pods = []
        for n in range(2):
            pods.append(Pod(docs, tmp_path / f"pod-{n}", secrets))
            stack.callback(pods[-1].end)
        one, other = pods
        # Nobody has loaded the functions yet: the servers may not, say so, and wait.
        until(lambda: "may not load functions" in one.process.said(), lambda: f"the log says what is missing: {one.process.said()}", 12)
        assert get(one.ops, "/readyz")[0] == 503
        job = Job(docs, tmp_path / "job", secrets)
        assert job.done.returncode == 0, job.done.stderr
        for pod in pods:
            pod.until_ready()
        for server in servers:
            server.ask("ACL", "LOG", "RESET")
        # Keys are made and taken back in a server's pod, as its user.
        key, admin = one.key("t.*"), one.key("admin", "--scopes", "admin")
        gone = one.key("gone")
        config = one.container["args"][-1]
        for words in (("list",), ("rotate", "--client", "gone"), ("revoke", "--client", "gone")):
            done = one.exec("/mcp-messaging", "--config", config, "keys", *words)
            assert done.returncode == 0, done.stderr
        until(lambda: (get(one.port, "/api/sessions", host="localhost", key=gone) or (0,))[0] == 401, "the key is taken back", 12)
        every_operation(one.port, other.port, key)
        assert get(one.port, "/api/sessions", host="localhost", key=admin)[0] == 200
        time.sleep(2.5)  # probes of subscriptions, watchdogs
        assert {refused for server in servers for refused in refused_by(server)} == set(), "rights are missing"
        assert "mcp_messaging_deaf_subscriptions_total 0" in get(one.ops, "/metrics")[1]


@pytest.mark.parametrize("kind", ["single", "cluster"])
def test_the_users_have_exactly_the_commands_of_the_functions(kind):
    """Redis asks for the caller's right at each command in a function; some are rare and no conversation reaches them all."""
    lua = (chart.ROOT / "migrations" / "functions" / "mb1.lua").read_text()
    lua = re.sub(r"--.*", "", lua)
    used = {name.lower() for name in re.findall(r"call\('([A-Z]+)'", lua)}
    assert len(used) > 20
    assert not re.findall(r"\bcall\((?!')", lua), "a command that this test cannot read"
    (server, _) = users(kind)
    given = set(re.findall(r"\+(\S+)", server))
    connection = {"fcall", "info", "ping", "client|id"}
    # `mcp-messaging keys`; servers themselves only read (hgetall).
    keys = {"hgetall", "hset", "hsetnx"}
    more = {
        "single": {"select", "role", "subscribe", "unsubscribe", "publish"},
        "cluster": {"cluster|info", "cluster|slots", "ssubscribe", "sunsubscribe", "spublish"},
    }
    assert given == used | connection | keys | more[kind]


def test_the_users_may_do_nothing_else(tmp_path):
    with Redis(tmp_path / "redis", "--aclfile", acl_file(tmp_path, "single"), login=ADMIN) as redis:
        redis.ask("SET", "other", "secret")

        def may(user, *words):
            login, redis.login = redis.login, ("--user", user, "--pass", "pass-word")
            said = redis.ask(*words, failing=True)
            redis.login = login
            return "NOPERM" not in said and "No permissions" not in said

        assert may("mailbox", "PING") and may("mailbox-migrate", "PING"), "the logins work"
        for words in (
            ("GET", "other"), ("SET", "other", "x"), ("KEYS", "*"), ("FLUSHALL",), ("CONFIG", "GET", "*"), ("EVAL", "return 1", "0"),
            ("FUNCTION", "LOAD", "REPLACE", "#!lua name=mb1\n"), ("FUNCTION", "FLUSH"), ("FUNCTION", "DELETE", "mb1"),
            ("PUBLISH", "other", "x"), ("SUBSCRIBE", "other"), ("ACL", "LIST"), ("MONITOR",), ("CLIENT", "KILL", "TYPE", "normal"), ("SHUTDOWN",), ("SCAN", "0"),
        ):
            assert not may("mailbox", *words), words
        for words in (("GET", "mb1:x"), ("FUNCTION", "FLUSH"), ("KEYS", "*"), ("EVAL", "return 1", "0"), ("PUBLISH", "mb1:x", "x"), ("FLUSHALL",)):
            assert not may("mailbox-migrate", *words), words


def test_a_hook_that_cannot_reach_redis_fails_the_upgrade(tmp_path):
    docs = chart.render({"redis": {"url": f"redis://127.0.0.1:{free_port()}"}, "migrate": {"enabled": True}})
    (manifest,) = [doc for doc in docs if doc["kind"] == "Secret" and doc["metadata"]["name"].endswith("-migrate")]
    job = Job(docs, tmp_path / "job", {manifest["metadata"]["name"]: secret(manifest), "mailbox-keys": {"master-keys": MASTER_KEYS}})
    assert job.done.returncode != 0 and job.done.stderr.startswith("mcp-messaging: "), job.done


def test_a_redis_of_an_unknown_authority_is_not_trusted(tmp_path, authority):
    with Redis(tmp_path / "redis", *tls(authority), tls=("--tls", "--cacert", authority / "ca.crt")) as redis, contextlib.ExitStack() as stack:
        url = f"rediss://127.0.0.1:{redis.port}"
        stranger = Pod(chart.render({"redis": {"url": url}, **OPEN}), tmp_path / "stranger")
        stack.callback(stranger.end)
        friend = Pod(chart.render({"redis": {"url": url, "caSecret": "a"}, **OPEN}), tmp_path / "friend", {"a": {"ca.crt": (authority / "ca.crt").read_text()}})
        stack.callback(friend.end)
        friend.until_ready()
        call(friend.port, "send_message", {"sender_id": "a", "recipient_id": "b", "message": "x"})
        until(lambda: "certificate" in stranger.process.said().lower(), lambda: f"the log says why: {stranger.process.said()}", 12)
        assert get(stranger.ops, "/readyz")[0] == 503


def test_the_trial_redis_keeps_mail_over_a_crash_and_never_evicts(tmp_path):
    """With the arguments of the chart's own Redis."""
    docs = chart.rendered("trial")
    (container,) = chart.named(docs, "StatefulSet")["spec"]["template"]["spec"]["containers"]
    assert container["command"] == ["redis-server"] and container["args"][:2] == ["--dir", "/data"]
    arguments = container["args"][2:]
    memory = int(container["resources"]["limits"]["memory"].removesuffix("Mi"))
    assert int(arguments[arguments.index("--maxmemory") + 1].removesuffix("mb")) * 1.5 < memory, "room for a rewrite"
    folder = tmp_path / "redis"
    with Redis(folder, *arguments) as redis:
        assert redis.ask("CONFIG", "GET", "maxmemory-policy").split()[-1] == "noeviction"
        assert redis.ask("CONFIG", "GET", "save").split("\n")[-1] in ("save", "")
        redis.ask("SET", "kept", "1")
        time.sleep(1.5)  # appendfsync everysec
    with Redis(folder, *arguments) as redis:
        assert redis.ask("GET", "kept") == "1"
