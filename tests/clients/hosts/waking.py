"""Real agent hosts are told of mail by `mcp-messaging hook`: Claude Code and Codex CLI, with a stand-in for the model behind them.

    waking.py BINARY

Everything else is real: the host's program from its npm package, the server, the hook that the host starts, MCP over HTTP. Each check
has a server, a home, a project and ids of its own, and a model that answers by script (`model.py`): it does what the hook says and takes
the mail by the tool, or it takes no notice. Prints one line per check, as the conversations do. Every wait is bounded; nothing is judged
by how long it took.
"""

import concurrent.futures
import contextlib
import fcntl
import http.client
import json
import os
import pathlib
import pty
import re
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
import traceback
import uuid

from model import Call, Model

MODULES = pathlib.Path(__file__).parent / "node_modules"
PATIENCE = 120  # seconds, for what a host does in a few
AT_ONCE = 2


def until(holds, what, seconds=PATIENCE):
    give_up = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < give_up, what
        time.sleep(0.05)


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


# --- the mailbox, and who writes to it ---


class Mailbox:
    """A server with the memory backend."""

    def __init__(self, binary, home):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/mcp"
        place = {"MCP_SERVER_HOST": "127.0.0.1", "MCP_SERVER_PORT": str(self.port)}
        with open(home / "mailbox.log", "wb") as log:
            self.process = subprocess.Popen(
                [binary, "serve"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | place | {"QUEUE_BACKEND": "memory"},
            )

    def __enter__(self):
        until(self.listens, "the server does not listen")
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(20)

    def listens(self):
        assert self.process.poll() is None, "the server did not start"
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port), 1).close()
            return True

    def exchange(self, method, path, body=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        connection.request(method, path, body, headers)
        text = connection.getresponse().read().decode()
        connection.close()
        return text

    def call(self, tool, **arguments):
        params = {"name": tool, "arguments": arguments}
        message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
        return json.loads(self.exchange("POST", "/mcp", json.dumps(message)))["result"][
            "structuredContent"
        ]

    def has_shown_its_tools(self):
        return bool(
            re.search(r'_count\{[^}]*"tools/list"[^}]*\} [1-9]', self.exchange("GET", "/metrics"))
        )


class Peer:
    """One who writes to the agent, and whom the agent can only know from the mailbox."""

    def __init__(self, mailbox):
        self.mailbox, self.texts, self.sent = mailbox, [], []
        self.id, self.agent = (f"{kind}-{uuid.uuid4().hex[:8]}" for kind in ("peer", "agent"))

    def write(self):
        self.texts.append(f"the build is red, says {uuid.uuid4().hex}")
        sent = self.mailbox.call(
            "send_message", sender_id=self.id, recipient_id=self.agent, message=self.texts[-1]
        )
        self.sent.append(sent["results"][0]["message_id"])

    def states(self):
        asked = self.mailbox.call("message_status", sender_id=self.id, message_ids=self.sent)
        return [one["state"] for one in asked["messages"]]

    def all_taken(self):
        return set(self.states()) == {"acknowledged"}

    def check_all_taken(self):
        assert self.sent and self.all_taken(), self.states()
        left = self.mailbox.call("get_messages", client_id=self.agent, wait_seconds=0)
        assert left["messages"] == [], left


# --- the models ---


def ignores(peer):
    return lambda request: "done"


def obeys(peer):
    """Having heard of the peer, it takes what waits, until it has all that the peer wrote."""

    def script(request):
        if not request.heard(peer.id) or all(map(request.heard, peer.texts)):
            return "done"
        (tool,) = (tool for tool in request.tools if tool.name.endswith("get_messages"))
        return Call(tool, {"client_id": peer.agent})

    return script


def gets_mail_meanwhile(peer, then):
    """The mail comes while the model is at its first turn."""

    def script(request):
        if peer.sent:
            return then(request)
        assert not request.heard(peer.id), "told before there was mail"
        peer.write()
        return "done"

    return script


# --- the hosts ---


class Host:
    """A host in a new home, with a new project whose `events` start the hook."""

    def __init__(self, check, events, options="", **more):
        self.home, self.model, self.url = check.home, check.model, check.url
        self.project = check.home / "project"
        self.project.mkdir()
        command = [check.binary, "hook", "--url", check.url, "--client", check.peer.agent]
        hook = {"type": "command", "command": f"{shlex.join(command)} {options}"} | more
        self.hooks = {"hooks": {event: [{"hooks": [hook]}] for event in events}}
        # Nothing of this machine's user: no configuration, no account.
        home = str(check.home)
        self.environment = {"PATH": os.environ["PATH"], "HOME": home, "TMPDIR": home}
        self.environment |= {"TERM": "xterm-256color", "LANG": "C.UTF-8"}
        self.configure()

    @classmethod
    def find(cls):
        """The program for this machine, which one of the package's optional dependencies holds."""
        return next(MODULES.glob(cls.programs), None)

    def write(self, file, text):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text if isinstance(text, str) else json.dumps(text))

    def ended(self, *arguments):
        """What the program wrote, a JSON value a line, until it ended by itself."""
        done = subprocess.run(
            [self.find(), *arguments],
            cwd=self.project,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert done.returncode == 0, (done.returncode, done.stdout[-2000:], done.stderr[-2000:])
        return [json.loads(line) for line in done.stdout.splitlines()]


class Claude(Host):
    name, package = "Claude Code", "@anthropic-ai/claude-code"
    programs = "@anthropic-ai/claude-code-*/claude"

    def configure(self):
        allowed = {"permissions": {"allow": ["mcp__messaging"]}}
        self.write(self.project / ".claude/settings.json", self.hooks | allowed)
        servers = {"messaging": {"type": "http", "url": self.url}}
        self.write(self.project / ".mcp.json", {"mcpServers": servers})
        # What a person answers once: the questions of the first start, and that the project is trusted.
        trusted = {"hasTrustDialogAccepted": True, "enabledMcpjsonServers": ["messaging"]}
        answered = {
            "hasCompletedOnboarding": True,
            "theme": "dark",
            "customApiKeyResponses": {"approved": ["x"], "rejected": []},
            "projects": {str(self.project): trusted},
        }
        self.write(self.home / ".claude.json", answered)
        self.environment |= {
            "ANTHROPIC_BASE_URL": self.model.url,
            "ANTHROPIC_API_KEY": "x",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",  # telemetry, updates
            "ENABLE_TOOL_SEARCH": "false",  # the stand-in does not search for its tools
        }

    def run(self):
        """One prompt without a terminal: what the hooks said, each with its event, exit code, stdout and stderr."""
        show = ["--output-format", "stream-json", "--verbose", "--include-hook-events"]
        events = self.ended(*show, "-p", "Do your work.")
        (result,) = (one for one in events if one["type"] == "result")
        assert result["result"] == "done" and not result["is_error"], result
        said = (one for one in events if one.get("subtype") == "hook_response")
        return [(one["hook_event"], one["exit_code"], one["stdout"], one["stderr"]) for one in said]

    @contextlib.contextmanager
    def idling(self):
        """A session in a terminal that nobody types into."""
        screen, terminal = pty.openpty()
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 200, 0, 0))
        process = subprocess.Popen(
            [self.find(), "Do your work."],
            cwd=self.project,
            env=self.environment,
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            start_new_session=True,
        )
        os.close(terminal)
        reader = threading.Thread(target=self.look, args=(screen,))
        reader.start()
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(20)
            finally:
                process.kill()
                reader.join(20)

    def look(self, screen):
        """Keeps what is shown, until the last process that may write to the terminal is gone."""
        with open(self.home / "screen", "wb") as kept, contextlib.suppress(OSError):
            while data := os.read(screen, 65536):
                kept.write(data)
                kept.flush()
        os.close(screen)


class Codex(Host):
    name, package = "Codex CLI", "@openai/codex"
    programs = "@openai/codex-*/vendor/*/bin/codex"

    def configure(self):
        self.write(self.home / ".codex/hooks.json", self.hooks)
        self.write(
            self.home / ".codex/config.toml",
            f"""
            model = "stand-in"
            model_provider = "stand-in"
            check_for_update_on_startup = false
            analytics.enabled = false

            [model_providers.stand-in]
            name = "stand-in"
            base_url = "{self.model.url}/v1"
            wire_api = "responses"

            [mcp_servers.messaging]
            url = "{self.url}"
            default_tools_approval_mode = "approve"
            """,
        )

    def run(self):
        """One prompt without a terminal. Nobody is there to review the hooks: the flag says that it was done."""
        about = ["--json", "--skip-git-repo-check", "--dangerously-bypass-hook-trust"]
        events = self.ended("exec", *about, "Do your work.")
        items = [one["item"] for one in events if one["type"] == "item.completed"]
        assert items[-1]["type"] == "agent_message" and items[-1]["text"] == "done", items


# --- the checks ---


class Check:
    """What one check has for itself. Its folder is outside of this repository, whose own instructions and settings a host would take up."""

    def __init__(self, binary):
        self.binary = binary
        self.home = pathlib.Path(tempfile.mkdtemp(prefix="mcp-messaging-")).resolve()
        self.ends = contextlib.ExitStack()

    def __enter__(self):
        self.mailbox = self.ends.enter_context(Mailbox(self.binary, self.home))
        self.url, self.peer = self.mailbox.url, Peer(self.mailbox)
        self.model = self.ends.enter_context(Model(None))
        return self

    def __exit__(self, *_):
        for pid in self.hooks_that_wait():  # a host that was killed may leave one behind
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        self.ends.close()

    def thinks(self, script):
        self.model.script = script

    def turns(self):
        assert not self.model.errors, self.model.errors
        return len(self.model.requests)

    def told(self, text):
        """Whether a hook said who wrote, and did not say what."""
        assert not any(one in text for one in self.peer.texts), text
        return self.peer.id in text and "get_messages" in text

    def hooks_that_wait(self):
        """The ids of their processes: nobody else knows the agent's id."""
        listed = subprocess.run(
            ["ps", "-axo", "pid=,command="], capture_output=True, text=True, check=True
        ).stdout
        return [int(line.split()[0]) for line in listed.splitlines() if self.peer.agent in line]


def mail_meanwhile(check, host):
    """mail that came while it worked: at its stop it is told, takes it, and stops"""
    check.thinks(gets_mail_meanwhile(check.peer, obeys(check.peer)))
    said = host(check, ["Stop"]).run()
    assert check.turns() == 3, check.turns()  # it stops; it is told and calls the tool; it has the text and stops
    check.peer.check_all_taken()
    if said:
        (first, again) = said
        assert first[:2] == ("Stop", 0) and again == ("Stop", 0, "", ""), said
        answer = json.loads(first[2])
        assert answer["decision"] == "block" and check.told(answer["reason"]), answer


def no_mail(check, host):
    """no mail: nothing is said, and it stops at once"""
    check.thinks(obeys(check.peer))
    said = host(check, ["SessionStart", "UserPromptSubmit", "Stop"]).run()
    assert check.turns() == 1, check.turns()
    events = ("SessionStart", "UserPromptSubmit", "Stop")
    assert said == [(event, 0, "", "") for event in events], said


def ignored(check, host):
    """mail that the model ignores: it is told once, may stop, and the mail waits on"""
    check.thinks(gets_mail_meanwhile(check.peer, ignores(check.peer)))
    host(check, ["Stop"]).run()
    assert check.turns() == 2, check.turns()
    assert check.told("\n".join(check.model.requests[-1].told)), check.model.requests[-1].told
    assert check.peer.states() == ["queued"], check.peer.states()


def mail_before(event):
    def before(check, host):
        check.peer.write()
        check.thinks(obeys(check.peer))
        host(check, [event]).run()
        assert check.turns() == 2, check.turns()
        assert check.told("\n".join(check.model.requests[0].told)), check.model.requests[0].told
        check.peer.check_all_taken()

    before.__doc__ = f"mail that waits before it begins: its first turn knows, by {event}"
    return before


def no_mailbox(check, host):
    """no mailbox there: the hook says so in one line, and it works on"""
    check.url = f"http://127.0.0.1:{free_port()}/mcp"
    said = host(check, ["UserPromptSubmit", "Stop"]).run()
    assert [one[:3] for one in said] == [("UserPromptSubmit", 1, ""), ("Stop", 1, "")], said
    assert all(one[3].strip() and one[3].strip().count("\n") == 0 for one in said), said


def late_mail(check, host):
    """mail that comes while the hook waits at its stop: it goes on in place of resting"""
    check.thinks(obeys(check.peer))

    def write_late():
        until(check.hooks_that_wait, "no hook waits")
        time.sleep(1)  # it looked, and found nothing
        check.peer.write()

    late = threading.Thread(target=write_late)
    late.start()
    host(check, ["Stop"], "--wait 10", timeout=90).run()
    late.join()
    assert check.turns() == 3, check.turns()
    check.peer.check_all_taken()


def unattended(check, host):
    """a hook that wakes, without a terminal: it tells what is there, and holds nothing up"""
    check.thinks(gets_mail_meanwhile(check.peer, obeys(check.peer)))
    # Should it wait, the run would last longer than we are patient.
    host(check, ["Stop"], "--wait 3000 --rewake", asyncRewake=True, timeout=3600).run()
    assert check.turns() == 3, check.turns()
    check.peer.check_all_taken()


def woken(check, host):
    """a session that idles in a terminal is woken by mail, and by the next one too"""
    check.thinks(obeys(check.peer))
    took = []
    session = host(check, ["Stop"], "--wait 3000 --rewake", asyncRewake=True, timeout=3600)
    with session.idling():
        until(check.mailbox.has_shown_its_tools, "it did not connect")
        for _ in range(2):
            until(check.hooks_that_wait, "no hook waits")
            time.sleep(2)  # it idles
            turns, sent = check.turns(), time.monotonic()
            check.peer.write()
            until(check.peer.all_taken, f"not woken: {check.peer.states()}")
            took.append(f"{time.monotonic() - sent:.1f} s")
            until(lambda: check.turns() == turns + 2, "it did not come to rest")
    check.peer.check_all_taken()
    until(lambda: not check.hooks_that_wait(), "a hook outlives its session")
    return f"the mail was taken {' and '.join(took)} after it was sent"


CHECKS = {
    Claude: [
        woken,
        mail_meanwhile,
        no_mail,
        ignored,
        late_mail,
        mail_before("SessionStart"),
        mail_before("UserPromptSubmit"),
        no_mailbox,
        unattended,
    ],
    Codex: [
        mail_meanwhile,
        ignored,
        late_mail,
        mail_before("SessionStart"),
        mail_before("UserPromptSubmit"),
    ],
}


def checked(binary, host, function):
    what = f"[{host.name}] {function.__doc__}"
    if not host.find():
        return f"n/a  {what}: its package has no program for this machine"
    mine = Check(binary)
    try:
        with mine as check:
            found = function(check, host)
    except Exception:
        return f"{traceback.format_exc(limit=-4)}see {mine.home}\nFAIL {what}"
    shutil.rmtree(mine.home, ignore_errors=True)  # a host may still tidy up
    return f"ok   {what}" + (f": {found}" if found else "")


def main():
    binary = str(pathlib.Path(sys.argv[1]).resolve())
    for host in CHECKS:
        about = json.loads((MODULES / host.package / "package.json").read_text())
        print(f"{host.name} {about['version']}", flush=True)
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as lanes:
        jobs = [
            lanes.submit(checked, binary, host, function)
            for host, functions in CHECKS.items()
            for function in functions
        ]
        for job in jobs:
            print(job.result(), flush=True)


if __name__ == "__main__":
    main()
