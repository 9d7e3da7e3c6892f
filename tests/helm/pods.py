"""A rendered Deployment as local processes: what a kubelet, the endpoints and kube-proxy do with it, without a cluster.

Command, environment, files, probes, grace and signals are the manifest's. What differs is said here: the pod's address is 127.0.0.1 with
free ports, its files lie in a folder, and Redis is where the test put it (by values).
"""

import asyncio
import re
import subprocess
import threading
import time

import chart
from processes import BINARY, TERM, Process, free_port, get, secret, until


# Of every Secret mailbox-keys; chart.KEYS names it.
MASTER_KEYS = "m1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"


def environment_of(container, secrets):
    """A container's environment, with $(NAME) put in as Kubernetes does: only names that stand before."""
    environment = {}
    for item in container.get("env", []):
        if "value" in item:
            value = re.sub(r"\$\((\w+)\)", lambda match: environment.get(match[1], match[0]), item["value"])
        elif "secretKeyRef" in item["valueFrom"]:
            reference = item["valueFrom"]["secretKeyRef"]
            value = secrets[reference["name"]][reference["key"]]
        else:
            value = "of-the-pod"
        environment[item["name"]] = value
    return environment


class Pod:
    """One pod. `ready` is what Kubernetes would think; `endpoint` is set as long as calls are to come here."""

    def __init__(self, docs, folder, secrets=None, binary=BINARY):
        self.spec = chart.deployment(docs)["spec"]["template"]["spec"]
        (self.container,) = self.spec["containers"]
        self.docs, self.folder, self.binary = docs, folder, binary
        made = {doc["metadata"]["name"]: secret(doc) for doc in docs if doc["kind"] == "Secret"}
        self.secrets = {"mailbox-keys": {"master-keys": MASTER_KEYS}} | made | (secrets or {})
        self.port, self.ops = free_port(), free_port()
        self.ready, self.restarts, self.terminating, self.history = False, 0, threading.Event(), []
        folder.mkdir(parents=True)
        for mount in self.container["volumeMounts"]:
            self.mount(mount)
        self.arguments = [self.local(word) for word in self.container["args"]]
        self.environment = self.resolve()
        self.process = Process(self.arguments, self.environment, folder / "log", binary)
        self.kubelet = threading.Thread(target=self.probe, daemon=True)
        self.kubelet.start()

    def local(self, text):
        """A path of the pod as one of this machine."""
        for mount in self.container["volumeMounts"]:
            if text.startswith(mount["mountPath"]):
                return f"{self.folder}{text}"
        return text

    def mount(self, mount):
        (volume,) = [volume for volume in self.spec["volumes"] if volume["name"] == mount["name"]]
        target = self.folder / mount["mountPath"].lstrip("/")
        target.mkdir(parents=True)
        if "configMap" in volume:
            (config,) = [doc for doc in self.docs if doc["kind"] == "ConfigMap" and doc["metadata"]["name"] == volume["configMap"]["name"]]
            for name, text in config["data"].items():
                assert "0.0.0.0:9090" in text
                (target / name).write_text(text.replace("0.0.0.0:9090", f"127.0.0.1:{self.ops}"))
        elif "secret" in volume:
            for item in volume["secret"]["items"]:
                (target / item["path"]).write_text(self.secrets[volume["secret"]["secretName"]][item["key"]])

    def resolve(self):
        environment = environment_of(self.container, self.secrets)
        return self.at_home({name: self.local(value) for name, value in environment.items()})

    def at_home(self, environment):
        """Where a server of this test listens."""
        assert (environment["MCP_SERVER_HOST"], environment["MCP_SERVER_PORT"]) == ("0.0.0.0", "8123")
        assert self.container["ports"] == [{"name": "http", "containerPort": 8123}, {"name": "ops", "containerPort": 9090}]
        return environment | {"MCP_SERVER_HOST": "127.0.0.1", "MCP_SERVER_PORT": str(self.port)}

    def ask(self, kind):
        probe = self.container[kind]
        assert probe["httpGet"]["port"] == "ops"
        # A kubelet's Host header is the pod's address.
        answer = get(self.ops, probe["httpGet"]["path"], host="10.1.2.3:9090", seconds=probe["timeoutSeconds"])
        return answer is not None and 200 <= answer[0] < 400

    def probe(self):
        """Startup, then readiness and liveness by their periods and thresholds."""
        startup, tries = self.container["startupProbe"], 0
        while not self.ask("startupProbe"):
            tries += 1
            if tries >= startup["failureThreshold"]:
                self.restarts += 1
                return
            time.sleep(startup["periodSeconds"])
        failed = {"readinessProbe": 0, "livenessProbe": 0}
        due = dict.fromkeys(failed, time.monotonic())
        while not self.terminating.is_set():
            for kind, at in due.items():
                if time.monotonic() < at:
                    continue
                due[kind] = time.monotonic() + self.container[kind]["periodSeconds"]
                failed[kind] = 0 if self.ask(kind) else failed[kind] + 1
                over = failed[kind] >= self.container[kind].get("failureThreshold", 3)
                if kind == "livenessProbe" and over:
                    self.restarts += 1
                if kind == "readinessProbe" and (over or not failed[kind]):
                    self.ready = not over
            time.sleep(0.05)

    def until_ready(self, patience=30):
        until(lambda: self.ready, f"the pod is ready: {self.folder / 'log'}", patience)
        return self

    def exec(self, *command):
        """kubectl exec of the server's own binary, the only one in its image: a finished process with the container's environment."""
        assert command[0] == "/mcp-messaging", "there is no shell"
        words = [self.binary, *map(self.local, command[1:])]
        environment = self.environment | {"MCP_SERVER_HOST": "0.0.0.0", "MCP_SERVER_PORT": "8123"}
        return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=30)

    def key(self, client, *more):
        """A key, issued as the chart's notes say."""
        config = self.container["args"][self.container["args"].index("--config") + 1]
        done = self.exec("/mcp-messaging", "--config", config, "keys", "issue", "--client", client, *more)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def terminate(self):
        """As a kubelet: SIGTERM. The exit code; a pod that would be killed when its grace is over has failed."""
        self.terminating.set()
        grace = self.spec["terminationGracePeriodSeconds"]
        assert "lifecycle" not in self.container
        self.process.signal(TERM)
        return self.process.wait(grace)

    def end(self):
        self.terminating.set()
        self.process.end()
        self.kubelet.join()


class Service:
    """kube-proxy: connections go to the endpoints in turn, and nothing is tried again.

    A pod that terminates is left out `lag` seconds later: nobody hears of it at once.
    """

    def __init__(self, lag):
        self.lag, self.pods, self.turn, self.open = lag, [], 0, set()
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)

    def __enter__(self):
        self.thread.start()
        start = asyncio.start_server(self.serve, "127.0.0.1", 0)
        self.server = asyncio.run_coroutine_threadsafe(start, self.loop).result(10)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_):
        asyncio.run_coroutine_threadsafe(self.close(), self.loop).result(10)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()

    async def close(self):
        self.server.close()
        for task in list(self.open):
            task.cancel()
        await asyncio.gather(*self.open, return_exceptions=True)

    def add(self, pod):
        self.pods = [*self.pods, pod]

    def remove(self, pod):
        """What the endpoints' controller does when a pod begins to terminate."""

        def later():
            self.pods = [other for other in self.pods if other is not pod]

        threading.Timer(self.lag, later).start()

    async def serve(self, reader, writer):
        self.open.add(asyncio.current_task())  # the loop alone would let go of it
        pods = self.pods
        self.turn += 1
        try:
            from_pod, to_pod = await asyncio.open_connection("127.0.0.1", pods[self.turn % len(pods)].port)
            try:
                await asyncio.gather(self.pass_on(reader, to_pod), self.pass_on(from_pod, writer))
            finally:
                to_pod.close()
                writer.close()
        except OSError:
            writer.transport.abort()
        finally:
            self.open.discard(asyncio.current_task())

    @staticmethod
    async def pass_on(reader, writer):
        try:
            while chunk := await reader.read(65536):
                writer.write(chunk)
                await writer.drain()
            if writer.can_write_eof():
                writer.write_eof()
        except OSError:
            writer.transport.abort()
