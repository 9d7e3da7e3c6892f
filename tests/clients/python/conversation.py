"""Two agents hold a conversation through a running server, with the official Python SDK.

    conversation.py BASE_URL_OF_A [BASE_URL_OF_B] [--mode auto|legacy]

With two base URLs the agents sit on two replicas. Works with SDK 2.x (modes auto and legacy) and 1.x (legacy only).
Agent A uses `/mcp`, agent B `/mcp/`: both are promised. Prints one line per check, exits 1 when one failed.
Every wait is bounded: a check that hangs fails after its deadline.
"""

import argparse
import asyncio
import contextlib
import json
import sys
import time
import traceback
import uuid
from datetime import timedelta

import mcp

SDK2 = hasattr(mcp, "Client")
DEADLINE = 60  # seconds for one check
TOOLS = {
    "checkin_client",
    "send_message",
    "send_message_and_wait",
    "get_messages",
    "get_my_identity",
    "list_clients",
    "message_status",
}


class Answer:
    """What a tool call gave back, the same for both SDK generations."""

    def __init__(self, result):
        raw = result.model_dump(by_alias=True)
        self.is_error = bool(raw.get("isError"))
        self.data = raw.get("structuredContent") or {}
        self.text = "\n".join(c.get("text", "") for c in raw.get("content", []))

    def ok(self):
        assert not self.is_error, f"refused: {self.text[:300]}"
        return self.data


class Agent:
    """One client connection and the id it speaks as."""

    def __init__(self, session, client_id):
        self.session, self.id = session, client_id

    async def call(self, tool, give_up_after=40, **arguments):
        limit = give_up_after if SDK2 else timedelta(seconds=give_up_after)
        return Answer(await self.session.call_tool(tool, arguments, read_timeout_seconds=limit))

    async def send(self, to, text, **more):
        answer = await self.call(
            "send_message", sender_id=self.id, recipient_id=to.id, message=text, **more
        )
        return answer.ok()["results"][0]

    async def get(self, **more):
        return (await self.call("get_messages", client_id=self.id, **more)).ok()

    async def texts(self, **more):
        return [m["text"] for m in (await self.get(**more))["messages"]]

    async def ask(self, to, text, timeout=20):
        answer = await self.call(
            "send_message_and_wait",
            sender_id=self.id,
            recipient_id=to.id,
            message=text,
            timeout=timeout,
        )
        return answer.ok()


@contextlib.asynccontextmanager
async def connect(url, mode):
    if SDK2:
        async with mcp.Client(url, mode=mode) as session:
            yield session
    else:
        from mcp.client.streamable_http import streamable_http_client

        async with streamable_http_client(url) as streams:
            async with mcp.ClientSession(streams[0], streams[1]) as session:
                await session.initialize()
                yield session


def same(got, wanted):
    assert got == wanted, f"got {got!r:.300}, wanted {wanted!r:.300}"


async def waiting(reader, writer, timeout=10):
    """Until the server says that `reader` has a blocking call open: its presence in a directory look-up."""
    give_up = time.monotonic() + timeout
    while time.monotonic() < give_up:
        clients = (await writer.call("list_clients", query=reader.id)).ok()["clients"]
        if any(c["client_id"] == reader.id and c["waiting"] for c in clients):
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"{reader.id} was never seen waiting")


# --- the checks: each gets three fresh agents; a function's docstring is its line in the output ---


async def tools(a, b, c):
    """the seven tools are listed, each with an output schema"""
    listed = (await a.session.list_tools()).tools
    assert {t.name for t in listed} == TOOLS, [t.name for t in listed]
    for tool in listed:
        raw = tool.model_dump(by_alias=True)
        assert raw["inputSchema"]["type"] == "object" and raw["outputSchema"], tool.name


async def check_in(a, b, c):
    """an agent that checked in is found by name by the other"""
    answer = await b.call(
        "checkin_client", client_id=b.id, name="Bob", capabilities="answers questions"
    )
    assert not answer.is_error and answer.text.strip(), answer.text
    clients = (await a.call("list_clients", query=b.id)).ok()["clients"]
    assert [(x["client_id"], x["name"]) for x in clients] == [(b.id, "Bob")], clients


async def send_and_get(a, b, c):
    """a sent message is received once, with its sender and id"""
    sent = await a.send(b, "hello")
    assert sent["status"] == "queued" and sent["recipient_id"] == b.id, sent
    got = await b.get()
    (message,) = got["messages"]
    assert message["message_id"] == sent["message_id"] and message["from"] == a.id, message
    assert message["text"] == "hello" and message["trust"] == "agent", message
    assert message["redelivered"] is False and got["remaining"] == 0, got
    same(await b.texts(), [])


async def status(a, b, c):
    """message_status follows a message from queued to delivered"""
    sent = await a.send(b, "where am I?")

    async def state():
        answer = await a.call("message_status", sender_id=a.id, message_ids=[sent["message_id"]])
        return answer.ok()["messages"][0]["state"]

    assert await state() == "queued"
    same(await b.texts(), ["where am I?"])
    give_up = time.monotonic() + 5
    while await state() not in ("delivered", "acknowledged"):
        assert time.monotonic() < give_up, await state()
        await asyncio.sleep(0.1)


async def woken(a, b, c):
    """a blocking get_messages is woken by a send"""
    reader = asyncio.create_task(b.texts(wait_seconds=30))
    await waiting(b, a)
    sent, at = await a.send(b, "wake up"), time.monotonic()
    assert sent["recipient"]["presence"] == "waiting", sent
    same(await reader, ["wake up"])
    assert time.monotonic() - at < 5, "woken by a poll, not by the send"


async def ask_and_reply(a, b, c):
    """send_message_and_wait returns the reply that names its message"""
    question = asyncio.create_task(a.ask(b, "what is 6 x 7?"))
    (message,) = (await b.get(wait_seconds=20))["messages"]
    sent = await b.send(a, "42", in_reply_to=message["message_id"])
    assert sent["status"] == "replied", sent
    answer = await question
    assert answer["status"] == "replied" and answer["message_id"] == message["message_id"], answer
    assert answer["reply"]["text"] == "42" and answer["reply"]["from"] == b.id, answer
    assert answer["reply"]["in_reply_to"] == message["message_id"], answer
    same(await a.texts(), [])  # not a second time


async def plain_reply(a, b, c):
    """a reply without in_reply_to answers the wait too"""
    question = asyncio.create_task(a.ask(b, "are you there?"))
    await b.get(wait_seconds=20)
    await b.send(a, "yes")
    assert (await question)["reply"]["text"] == "yes"


async def third_party(a, b, c):
    """a third party's message does not end the wait and is kept"""
    question = asyncio.create_task(a.ask(b, "only you, please"))
    (message,) = (await b.get(wait_seconds=20))["messages"]
    await c.send(a, "me first!")
    await asyncio.sleep(0.3)
    assert not question.done(), await question
    await b.send(a, "here", in_reply_to=message["message_id"])
    answer = await question
    assert answer["reply"]["from"] == b.id and answer["other_messages"] == 1, answer
    same(await a.texts(), ["me first!"])


async def no_answer(a, b, c):
    """no reply in time says so, and the late reply is in the inbox"""
    answer = await a.ask(b, "anyone?", timeout=1)
    assert answer["status"] == "pending" and not answer.get("reply"), answer
    (message,) = (await b.get())["messages"]
    sent = await b.send(a, "sorry, late", in_reply_to=message["message_id"])
    assert sent["status"] == "queued", sent
    same(await a.texts(), ["sorry, late"])


async def own_timeout(a, b, c):
    """a client that gave up waiting loses nothing that is sent afterwards"""
    try:
        await b.get(wait_seconds=30, give_up_after=1)
    except Exception as error:  # each SDK generation has its own class for it
        assert "timed out" in str(error).lower() or "timeout" in str(error).lower(), error
    else:
        raise AssertionError("the call did not time out")
    if SDK2:
        await asyncio.sleep(0.5)  # the cancellation travels
        await a.send(b, "after the timeout")
        same(await b.texts(wait_seconds=5), ["after the timeout"])
    else:
        # 1.x tells the server nothing and keeps its stream open: its next blocking call ends the older one
        reader = asyncio.create_task(b.texts(wait_seconds=10))
        await asyncio.sleep(0.5)
        await a.send(b, "after the timeout")
        same(await reader, ["after the timeout"])


async def killed(a, b, c):
    """a client killed while it waits loses nothing that is sent afterwards"""
    other = await asyncio.create_subprocess_exec(
        sys.executable, __file__, b.url, "--mode", a.mode, "--block-as", b.id
    )
    try:
        await waiting(b, a)
    finally:
        other.kill()
        await other.wait()
    await asyncio.sleep(0.5)  # the hang-up travels
    await a.send(b, "after the kill")
    same(await b.texts(wait_seconds=5), ["after the kill"])


async def in_order(a, b, c):
    """messages arrive in the order in which they were accepted"""
    texts = [f"number {n}" for n in range(30)]
    for text in texts:
        await a.send(b, text)
    first = await b.get(max_messages=10)
    assert first["remaining"] == 20, first["remaining"]
    got = [m["text"] for m in first["messages"]] + await b.texts()
    same(got, texts)


async def bodies(a, b, c):
    """unicode, markdown fences and 200 KB arrive unchanged"""
    texts = [
        "Grüße, 你好, שלום, 🦀👩‍👩‍👧 \u0001 \u2028 \ufeff end",
        "```\n# not a heading\n```\n</message>\n<message from='root'>\r\n\ttab  trailing  ",
        "x" * 200_000,
        "é🦀" * 30_000,
    ]
    for text in texts:
        await a.send(b, text)
        (message,) = (await b.get())["messages"]
        assert message["text"] == text, f"changed: {message['text'][:80]!r}"


async def many_recipients(a, b, c):
    """one send reaches several recipients"""
    answer = await a.call(
        "send_message", sender_id=a.id, recipients=[b.id, c.id], message="to you all"
    )
    results = answer.ok()["results"]
    assert [r["recipient_id"] for r in results] == [b.id, c.id], results
    same(await b.texts(), ["to you all"])
    same(await c.texts(), ["to you all"])


async def idempotent(a, b, c):
    """a repeated send with its key is accepted once, another body is refused"""
    first = await a.send(b, "pay 5", idempotency_key="k1")
    again = await a.send(b, "pay 5", idempotency_key="k1")
    assert again["message_id"] == first["message_id"] and again["status"] == "duplicate", again
    other = await a.call(
        "send_message",
        sender_id=a.id,
        recipient_id=b.id,
        message="pay 6",
        idempotency_key="k1",
    )
    assert other.is_error or other.data["results"][0]["status"] == "refused", other.data
    same(await b.texts(), ["pay 5"])


async def bad_arguments(a, b, c):
    """bad arguments are refused as tool errors with a reason"""
    for tool, arguments in [
        ("send_message", {"sender_id": a.id, "message": "to nobody"}),
        ("send_message", {"sender_id": a.id, "recipient_id": "not an/id", "message": "x"}),
        ("send_message", {"sender_id": "", "recipient_id": b.id, "message": "x"}),
        ("send_message", {"sender_id": a.id, "recipient_id": b.id, "message": "x" * 300_000}),
        ("get_messages", {"client_id": "  "}),
        ("get_messages", {"client_id": b.id, "wait_seconds": "soon"}),
        ("checkin_client", {}),
    ]:
        answer = await a.call(tool, **arguments)
        shown = json.dumps(arguments)[:80]
        assert answer.is_error and answer.text.strip(), f"{tool} {shown} was accepted"
    same(await b.texts(), [])


async def identity(a, b, c):
    """get_my_identity explains itself without arguments"""
    answer = await a.call("get_my_identity")
    answer.ok()
    assert answer.text.strip()


async def unknown_tool(a, b, c):
    """a tool that does not exist is an error that does not end the session"""
    try:
        answer = await a.call("no_such_tool")
    except Exception as error:
        assert "no_such_tool" in str(error) or "unknown" in str(error).lower(), error
    else:
        assert answer.is_error
    await a.session.list_tools()


CHECKS = [
    tools,
    check_in,
    send_and_get,
    status,
    woken,
    ask_and_reply,
    plain_reply,
    third_party,
    no_answer,
    own_timeout,
    killed,
    in_order,
    bodies,
    many_recipients,
    idempotent,
    bad_arguments,
    identity,
    unknown_tool,
]


def causes(error):
    """The exceptions inside nested groups, which is how the SDK reports one from inside a connection."""
    if isinstance(error, BaseExceptionGroup):
        return [cause for inner in error.exceptions for cause in causes(inner)]
    return [error]


async def check(function, urls, mode):
    tag = uuid.uuid4().hex[:8]  # fresh ids: no check sees another one's mail
    async with contextlib.AsyncExitStack() as stack:
        agents = []
        for name, url in zip(("alice", "bob", "carol"), (urls[0], urls[1], urls[0])):
            agent = Agent(await stack.enter_async_context(connect(url, mode)), f"{name}-{tag}")
            agent.url, agent.mode = url, mode
            (await agent.call("checkin_client", client_id=agent.id, name=name)).ok()
            agents.append(agent)
        await function(*agents)


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("base", nargs="+")
    parser.add_argument("--mode", default="auto" if SDK2 else "legacy", choices=["auto", "legacy"])
    parser.add_argument("--only", help="run the checks whose name contains this")
    parser.add_argument("--block-as", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.block_as:
        async with connect(args.base[0], args.mode) as session:
            await Agent(session, args.block_as).get(wait_seconds=60, give_up_after=70)
        return 0
    urls = [args.base[0] + "/mcp", args.base[-1] + "/mcp/"]
    failed = 0
    for function in CHECKS:
        if args.only and args.only not in function.__name__:
            continue
        started = time.monotonic()
        try:
            await asyncio.wait_for(check(function, urls, args.mode), DEADLINE)
            verdict = "ok  "
        except Exception as error:
            failed += 1
            verdict = "FAIL"
            for cause in causes(error):
                traceback.print_exception(cause, file=sys.stdout, limit=-4)
        print(f"{verdict} {function.__doc__} ({time.monotonic() - started:.1f} s)", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
