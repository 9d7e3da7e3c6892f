"""People log in with the OAuth client of the official Python SDK, of 1.x or 2.x, and talk to each other.

    conversation.py SERVER_URL ISSUER

Nothing is said to a client but the URL of the server: where to log in, and for what, the server tells it. Prints one line
per check, as ../python/conversation.py does.
"""

import asyncio
import contextlib
import re
import sys
import time
import traceback
import uuid
from importlib.metadata import version
from urllib.parse import parse_qs, urljoin, urlsplit

from mcp.client.auth import OAuthClientProvider
from mcp.client.auth.extensions.client_credentials import ClientCredentialsOAuthProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import OAuthClientMetadata

SECOND = version("mcp") >= "2"
if SECOND:
    import httpx2 as httpx
    from mcp import Client
    from mcp.shared.auth import AuthorizationCodeResult
else:
    import httpx
    from mcp import ClientSession

DEADLINE = 60  # seconds for one check
CALLBACK = "http://127.0.0.1:9/callback"  # nobody has to be there: the browser stops before it


class Store:
    """What a client keeps: its registration and its tokens."""

    tokens = client = None
    logins = 0

    async def get_tokens(self):
        return self.tokens

    async def set_tokens(self, tokens):
        self.tokens = tokens

    async def get_client_info(self):
        return self.client

    async def set_client_info(self, client):
        self.client = client


class Browser:
    """A person at a browser, who logs in and agrees."""

    def __init__(self, person, store):
        self.person, self.store = person, store

    async def open(self, url):
        self.store.logins += 1
        self.asked = parse_qs(urlsplit(url).query)
        async with httpx.AsyncClient() as http:
            for _ in range(10):
                page = await http.get(url)
                if page.status_code == 200:
                    action = re.search(r'action="([^"]+)"', page.text).group(1)
                    page = await http.post(urljoin(url, action), data={"login": self.person})
                assert page.status_code in (302, 303), f"{page.status_code}: {page.text[:300]}"
                url = urljoin(url, page.headers["location"])
                if url.startswith(CALLBACK):
                    self.came_back = {
                        name: values[0] for name, values in parse_qs(urlsplit(url).query).items()
                    }
                    return
        raise AssertionError("no way back from the login")

    async def back(self):
        came = self.came_back
        assert "code" in came, came
        if SECOND:
            return AuthorizationCodeResult(
                code=came["code"], state=came.get("state"), iss=came.get("iss")
            )
        return came["code"], came.get("state")


class Agent:
    """A client with whoever it acts for."""

    def __init__(self, session, store, browser=None):
        self.session, self.store, self.browser = session, store, browser

    async def call(self, tool, **arguments):
        raw = (await self.session.call_tool(tool, arguments)).model_dump(by_alias=True)
        assert not raw["isError"], raw["content"]
        return raw["structuredContent"]


@contextlib.asynccontextmanager
async def connected(url, auth, store, browser=None):
    async with httpx.AsyncClient(auth=auth, timeout=60) as http:
        transport = streamable_http_client(url, http_client=http)
        if SECOND:
            async with Client(transport) as session:
                yield Agent(session, store, browser)
        else:
            async with transport as (reads, writes, *_), ClientSession(reads, writes) as session:
                await session.initialize()
                yield Agent(session, store, browser)


def person(name, url):
    """A client that knows the server's URL, and the person before it."""
    store = Store()
    browser = Browser(name, store)
    about = OAuthClientMetadata(
        client_name="conversation",
        redirect_uris=[CALLBACK],
        grant_types=["authorization_code", "refresh_token"],
        response_types=["code"],
    )
    auth = OAuthClientProvider(url, about, store, browser.open, browser.back)
    return connected(url, auth, store, browser)


def mailbox(scopes):
    """Those that the server spoke of: some clients ask for refresh tokens beside them."""
    return sorted(scope for scope in scopes.split() if scope.startswith("mailbox:"))


async def talk(url, issuer):
    async with person("alice", url) as alice, person("bob", url) as bob:
        assert alice.store.logins == 1 and alice.store.tokens.access_token.count(".") == 2
        assert alice.browser.asked["resource"] == [url], alice.browser.asked
        assert mailbox(alice.browser.asked["scope"][0]) == ["mailbox:read", "mailbox:send"]
        sent = await alice.call("send_message", recipient_id="bob", message="hello")
        assert sent["results"][0]["status"] == "queued", sent
        got = (await bob.call("get_messages"))["messages"]
        assert [(m["from"], m["text"], m["verified_sender"]) for m in got] == [("alice", "hello", True)]
        asked = asyncio.create_task(
            alice.call("send_message_and_wait", recipient_id="bob", message="well?", timeout=30)
        )
        question = (await bob.call("get_messages", wait_seconds=30))["messages"][0]
        await bob.call("send_message", recipient_id="alice", message="yes", in_reply_to=question["message_id"])
        assert (await asked)["reply"]["text"] == "yes"


async def be_oneself(url, issuer):
    async with person("alice", url) as alice:
        me = await alice.call("get_my_identity")
        assert (me["client_id"], me["verified"]) == ("alice", True), me
        answer = (await alice.session.call_tool("get_messages", {"client_id": "bob"})).model_dump(by_alias=True)
        assert answer["isError"] and "use alice" in answer["content"][0]["text"], answer
        # A second window of hers.
        await alice.call("send_message", recipient_id="alice.laptop", message="to myself")
        got = await alice.call("get_messages", client_id="alice.laptop")
        assert [m["text"] for m in got["messages"]] == ["to myself"]


async def step_up(url, issuer):
    async with person(f"carol-{uuid.uuid4()}", url) as carol:
        assert mailbox(carol.store.tokens.scope) == ["mailbox:read"], carol.store.tokens.scope
        assert (await carol.call("get_messages"))["messages"] == []
        sent = await carol.call("send_message", recipient_id="dave", message="now I may")
        assert sent["results"][0]["status"] == "queued", sent
        assert carol.store.logins == 2
        assert mailbox(carol.store.tokens.scope) == ["mailbox:read", "mailbox:send"]
        # And what it could before, it still can.
        assert (await carol.call("get_messages"))["messages"] == []
        assert carol.store.logins == 2


async def work_alone(url, issuer):
    store = Store()
    more = {"issuer": issuer} if SECOND else {}
    auth = ClientCredentialsOAuthProvider(
        server_url=url,
        storage=store,
        client_id="robot",
        client_secret="a secret of tests, of nobody else",
        **({"scope": "mailbox:read mailbox:send"} if SECOND else {"scopes": "mailbox:read mailbox:send"}),
        **more,
    )
    async with connected(url, auth, store) as robot:
        me = await robot.call("get_my_identity")
        assert (me["client_id"], me["verified"]) == ("robot", True), me


CHECKS = {
    "two people log in and talk, each with a token of its own": talk,
    "a token is one's own name and its windows, and nobody else's": be_oneself,
    "a call that needs another scope asks for it, and keeps what was given": step_up,
    "a program without a person gets in with credentials of its own": work_alone,
}


async def main(url, issuer):
    failed = False
    for what, check in CHECKS.items():
        began = time.monotonic()
        try:
            await asyncio.wait_for(check(url, issuer), DEADLINE)
            word = "ok  "
        except Exception:
            traceback.print_exc()
            word, failed = "FAIL", True
        print(f"{word} [oauth, mcp {version('mcp')}] {what} ({time.monotonic() - began:.1f} s)", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(asyncio.run(main(*sys.argv[1:])))
