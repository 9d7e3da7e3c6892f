"""An installation that exists for one test: Redis, replicas, and a Prometheus that scrapes them and knows our rules.

All of it listens on free loopback ports and ends by its own process ids.
"""

import contextlib
import http.client
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

import yaml

ROOT = pathlib.Path(__file__).parents[2]
RULES = ROOT / "deploy/prometheus/rules.yml"
JOB = "mcp-messaging"


def binary():
    """The server: $MCP_MESSAGING_BIN, or the newest build."""
    named = os.environ.get("MCP_MESSAGING_BIN")
    if named:
        return pathlib.Path(named).resolve()
    builds = [ROOT / "target" / profile / "mcp-messaging" for profile in ("debug", "release")]
    builds = [build for build in builds if build.exists()]
    if not builds:
        raise FileNotFoundError("no binary: cargo build, or set MCP_MESSAGING_BIN")
    return max(builds, key=lambda build: build.stat().st_mtime)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until(condition, within=30.0, every=0.2):
    """Waits until `condition()` is truthy and returns that; fails after `within` seconds with the last answer."""
    last, deadline = None, time.monotonic() + within
    while time.monotonic() < deadline:
        last = condition()
        if last:
            return last
        time.sleep(every)
    raise AssertionError(f"still {last!r} after {within} s")


def fetched(url, timeout=5):
    """Body of a GET, or nothing when there is no answer."""
    try:
        with urllib.request.urlopen(url, timeout=timeout) as answer:
            return answer.read().decode()
    except OSError:
        return None


class Process:
    """A program with a log of its own."""

    def __init__(self, folder, name, arguments, environment=None):
        self.log = folder / f"{name}.log"
        with self.log.open("ab") as log:
            self.popen = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=folder,
                env={**os.environ, **(environment or {})},
            )

    def answering(self, question):
        """Waits for the first answer."""

        def asked():
            if self.popen.poll() is not None:
                raise AssertionError(f"{self.popen.args[0]} ended: {self.log.read_text()[-2000:]}")
            return question()

        until(asked)

    def send(self, which):
        self.popen.send_signal(which)

    def stop(self, which=signal.SIGTERM):
        if self.popen.poll() is None:
            self.popen.send_signal(signal.SIGCONT)
            self.popen.send_signal(which)
            try:
                self.popen.wait(15)
            except subprocess.TimeoutExpired:
                self.popen.kill()
                self.popen.wait(5)


class Replica:
    """One server."""

    def __init__(self, folder, name, settings, ready=True):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        environment = {
            "MCP_SERVER_HOST": "127.0.0.1",
            "MCP_SERVER_PORT": str(self.port),
            "LOG_LEVEL": "info",
            "MCP_MESSAGING__OPS__SAMPLE_SECONDS": "1",
            **settings,
        }
        self.process = Process(folder, name, [str(binary()), "serve"], environment)
        self.process.answering(lambda: fetched(f"{self.url}/{'readyz' if ready else 'livez'}") == "ok")

    def metrics(self):
        return fetched(f"{self.url}/metrics")

    def call(self, tool, timeout=20, **arguments):
        """Calls a tool and returns its structured answer; nothing when it was refused or failed."""
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": tool, "arguments": arguments}}
        answer = self.post(body, timeout)
        result = answer.get("result", {})
        return None if result.get("isError") else result.get("structuredContent")

    def post(self, body, timeout=20):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        with contextlib.closing(connection):
            connection.request(
                "POST",
                "/mcp",
                json.dumps(body),
                {"Content-Type": "application/json", "Accept": "application/json"},
            )
            return json.loads(connection.getresponse().read())

    def behind(self, tool, **arguments):
        """Calls a tool in a thread of its own. That the replica is gone is no fault of the caller's."""

        def calling():
            with contextlib.suppress(OSError, http.client.HTTPException):
                self.call(tool, **arguments)

        thread = threading.Thread(target=calling, daemon=True)
        thread.start()
        return thread

    def hang_up(self, tool, after=0.2, **arguments):
        """Calls a tool and closes the connection while it waits."""
        with contextlib.suppress(TimeoutError):
            self.call(tool, timeout=after, **arguments)


class Prometheus:
    """A real one, with a scrape and a rule evaluation each second."""

    def __init__(self, folder, replicas):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.targets = folder / "targets.json"
        self.scrape(replicas)
        config = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(RULES)],
            "scrape_configs": [{"job_name": JOB, "file_sd_configs": [{"files": [str(self.targets)]}]}],
        }
        file = folder / "prometheus.json"
        file.write_text(json.dumps(config))  # JSON is YAML
        self.process = Process(
            folder,
            "prometheus",
            [
                shutil.which("prometheus"),
                f"--config.file={file}",
                f"--storage.tsdb.path={folder / 'tsdb'}",
                f"--web.listen-address=127.0.0.1:{self.port}",
                "--log.level=warn",
            ],
        )
        self.process.answering(lambda: fetched(f"{self.url}/-/ready"))

    def scrape(self, replicas):
        """From now on, these. Written aside first: Prometheus reads it as soon as it changes."""
        aside = self.targets.with_suffix(".new")
        aside.write_text(json.dumps([{"targets": [f"127.0.0.1:{replica.port}" for replica in replicas]}]))
        aside.rename(self.targets)

    def get(self, path, **parameters):
        url = f"{self.url}{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            return json.load(error)

    def query(self, expression):
        """What an instant query returns: a list of (labels, value)."""
        answer = self.get("/api/v1/query", query=expression)
        assert answer["status"] == "success", f"{answer.get('error')}: {expression}"
        return [(each["metric"], float(each["value"][1])) for each in answer["data"]["result"]]


class Installation:
    """Redis, replicas and Prometheus. A context manager."""

    def __init__(self, folder, replicas=2, redis=(), **settings):
        self.folder, self.wanted, self.redis_options, self.settings = folder, replicas, redis, settings
        self.replicas, self.redis, self.prometheus, self.loads = [], None, None, []
        self.redis_port = free_port()

    def __enter__(self):
        try:
            self.start_redis()
            for _ in range(self.wanted):
                self.start_replica()
            self.prometheus = Prometheus(self.folder, self.replicas)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for load in self.loads:
            load.stop()
        parts = [self.prometheus and self.prometheus.process, *(replica.process for replica in self.replicas), self.redis]
        for part in parts:
            if part:
                part.stop()

    def start_replica(self, ready=True, **settings):
        """One more, with settings of its own."""
        settings = {"REDIS_URL": f"redis://127.0.0.1:{self.redis_port}/0", **self.settings, **settings}
        self.replicas.append(Replica(self.folder, f"replica-{len(self.replicas) + 1}", settings, ready))
        if self.prometheus:
            self.prometheus.scrape(self.replicas)
        return self.replicas[-1]

    def start_redis(self):
        port = str(self.redis_port)
        arguments = ["redis-server", "--port", port, "--bind", "127.0.0.1", "--save", "", "--dir", str(self.folder), *self.redis_options]
        self.redis = Process(self.folder, "redis", arguments)
        self.redis.answering(lambda: self.redis_says("PING") == "PONG")

    def redis_says(self, *command):
        arguments = ["redis-cli", "-p", str(self.redis_port), *command]
        return subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=10).stdout.strip()

    def repeat(self, work, every=0.05):
        """Does `work(round)` again and again in a thread of its own until the installation ends."""
        load = Load(work, every)
        self.loads.append(load)
        return load

    def fires(self, alert, within=45.0):
        """Waits until the expression of an alert holds, and returns the labels of the first series it holds for."""
        expression = alerts()[alert]["expr"]
        return until(lambda: self.prometheus.query(expression), within)[0][0]

    def holding(self):
        """The alerts whose expression holds now: none, when all is well."""
        return sorted(name for name, rule in alerts().items() if self.prometheus.query(rule["expr"]))


class Load:
    """Work that goes on in a thread. A call that finds no server is what a test of faults expects."""

    def __init__(self, work, every):
        self.done, self.rounds, self.fault = threading.Event(), 0, None
        self.thread = threading.Thread(target=self.run, args=(work, every), daemon=True)
        self.thread.start()

    def run(self, work, every):
        while not self.done.wait(every):
            try:
                work(self.rounds)
            except (OSError, http.client.HTTPException):
                pass
            except Exception as fault:  # noqa: BLE001 - kept for the test to see
                self.fault = fault
                return
            self.rounds += 1

    def stop(self):
        self.done.set()
        self.thread.join(30)
        if self.fault:
            raise self.fault


def rules():
    """Every rule of the file."""
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def alerts():
    """Every alert by its name."""
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}
