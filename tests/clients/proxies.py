"""Two replicas behind a real nginx and a real HAProxy: what docs/proxies.md says of them, with and without its lines.

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
        self.ports, self.replicas = [], []
        for n in (1, 2):
            port = free_port()
            self.ports.append(port)
            started = self.start(
                f"proxied-{n}",
                port,
                [self.binary, "serve"],
                MCP_SERVER_HOST="127.0.0.1",
                MCP_SERVER_PORT=str(port),
                REDIS_URL=f"redis://127.0.0.1:{redis}/0",
            )
            self.replicas.append(started)

    def proxy(self, name, kind, file):
        port = free_port()
        addresses = [f"127.0.0.1:{each}" for each in self.ports]
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
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=100)
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


def same_lines(kind):
    """the lines shown in docs/proxies.md are those of the file that runs here"""

    def lines(text):
        stripped = (line.strip() for line in text.splitlines())
        return [line for line in stripped if line and not line.startswith("#")]

    shown = re.search(rf"```{kind}\n(.*?)```", (ROOT / "docs/proxies.md").read_text(), re.S)[1]
    file = lines((ROOT / "deploy" / FILES[kind]).read_text())
    missing = [line for line in lines(shown) if line not in file]
    assert not missing, missing


# --- the run ---

FILES = {"nginx": "nginx.conf", "haproxy": "haproxy.cfg"}
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
    here = os.environ["PATH"] + ":/usr/sbin"
    kinds = [kind for kind in FILES if shutil.which(kind, path=here)]
    for kind in set(FILES) - set(kinds):
        print(f"skip {kind} is not on this machine: apt-get install {kind}")
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
        absent = {
            "nginx": [cut_off, as_it_comes, hang_up],
            "nginx-no-host": [refused],
            "nginx-deaf": [as_it_comes],
            "haproxy": [cut_off, as_it_comes, hang_up_unnoticed],
        }
        jobs += [
            (f"bare {name}", one, site, port) for name, port in bare.items() for one in absent[name]
        ]
        threads = [threading.Thread(target=check, args=job) for job in jobs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        site.replicas[1].terminate()
        site.replicas[1].wait(20)
        for kind, port in ports.items():
            check(kind, one_replica_less, site, port)
            check(kind, same_lines, kind)
    finally:
        site.close()


if __name__ == "__main__":
    main()
