"""Processes of a test: a private redis-server, the mailbox, an MCP client. All on loopback, all ended by their own id."""

import base64
import contextlib
import http.client
import json
import os
import pathlib
import signal
import socket
import subprocess
import time

import chart

BINARY = pathlib.Path(os.environ.get("MCP_MESSAGING_BIN", chart.ROOT / "target" / "debug" / "mcp-messaging")).absolute()
OLD_BINARY = pathlib.Path(os.environ.get("MCP_MESSAGING_OLD_BIN", BINARY)).absolute()
PATIENCE = 30
assert BINARY.exists() and OLD_BINARY.exists(), f"{BINARY} is missing: cargo build, or set MCP_MESSAGING_BIN"


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def until(condition, what, patience=PATIENCE):
    """Waits for a condition, and says for what it waited in vain."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError(f"not within {patience} s: {what() if callable(what) else what}")


class Redis:
    """redis-server with arguments, ended with its `with`."""

    def __init__(self, folder, *arguments, port=None, login=(), tls=None):
        self.port, self.login, self.tls = port or free_port(), login, tls
        self.folder, self.arguments, self.process = pathlib.Path(folder), arguments, None
        self.folder.mkdir(parents=True, exist_ok=True)

    def __enter__(self):
        listen = ["--port", self.port] if not self.tls else ["--port", 0, "--tls-port", self.port]
        with open(self.folder / "redis.log", "ab") as log:
            self.process = subprocess.Popen(
                [str(word) for word in ("redis-server", *listen, "--bind", "127.0.0.1", "--save", "", "--dir", self.folder, *self.arguments)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )
        until(lambda: self.ask("PING", failing=True) == "PONG", f"redis-server answers: {self.folder / 'redis.log'}")
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def ask(self, *words, failing=False):
        """What redis-cli prints."""
        done = subprocess.run(
            ["redis-cli", "-p", str(self.port), "--no-auth-warning", *self.login, *(self.tls or ()), *map(str, words)],
            capture_output=True, text=True, timeout=PATIENCE,
        )
        assert failing or (done.returncode == 0 and not done.stdout.startswith(("ERR", "NOAUTH", "NOPERM"))), done.stdout + done.stderr
        return done.stdout.strip()


class Process:
    """The mailbox with exactly these arguments and this environment."""

    def __init__(self, arguments, environment, log, binary=BINARY):
        self.log = pathlib.Path(log)
        with open(self.log, "ab") as output:
            self.child = subprocess.Popen(
                [binary, *map(str, arguments)], env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )

    def signal(self, number):
        self.child.send_signal(number)

    def wait(self, seconds):
        """Its exit code; later than that it has failed."""
        try:
            return self.child.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still there after {seconds} s: {self.said()}") from None

    def said(self):
        return self.log.read_text(errors="replace")[-3000:]

    def end(self):
        if self.child.poll() is None:
            self.child.kill()
        self.child.wait()


@contextlib.contextmanager
def running(*arguments, environment, log, binary=BINARY):
    process = Process(arguments, environment, log, binary)
    try:
        yield process
    finally:
        process.end()


def get(port, path, host=None, seconds=10, key=None):
    """Status and body, or None when nobody answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=seconds)
    try:
        connection.request("GET", path, headers={"Host": host or f"127.0.0.1:{port}", "Connection": "close", **bearing(key)})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    except OSError:
        return None
    finally:
        connection.close()


def ready(port):
    return (get(port, "/readyz") or (0, ""))[0] == 200


def bearing(key):
    """The header for a key, if there is one."""
    return {"Authorization": f"Bearer {key}"} if key else {}


def call(port, tool, arguments, host="localhost", seconds=PATIENCE, key=None):
    """structuredContent of a tool that succeeds. A new connection each: nothing is repeated."""
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": tool, "arguments": arguments}}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=seconds)
    try:
        connection.request(
            "POST", "/mcp", json.dumps(body),
            {"Host": host, "Content-Type": "application/json", "Accept": "application/json", "Connection": "close", **bearing(key)},
        )
        answer = connection.getresponse()
        text = answer.read().decode()
    finally:
        connection.close()
    assert answer.status == 200, f"{answer.status} {text}"
    message = json.loads(text)
    assert "result" in message and not message["result"].get("isError"), text
    return message["result"]["structuredContent"]


def secret(manifest):
    """The keys of a Secret, as a pod sees them."""
    plain = {key: base64.b64decode(value).decode() for key, value in manifest.get("data", {}).items()}
    return {**plain, **manifest.get("stringData", {})}


TERM = signal.SIGTERM
