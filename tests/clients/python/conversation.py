"""Agents hold a conversation through a running server, with any Python client that `clients.py` knows.

    conversation.py CLIENT BASE_URL_OF_A [BASE_URL_OF_B] [--mode auto|legacy] [--part long|short]

With two base URLs the agents sit on two replicas. Agent A uses `/mcp`, agent B `/mcp/`: both are promised. The part
`long` is what mostly waits, for a minute and longer; `short` is the rest. Says which client speaks which revision, then prints one line per check:

    ok   [group] what holds (0.1 s)
    FAIL [group] what should hold (0.1 s)
    n/a  [group] what this client cannot do: why

Exits 1 when one failed. Every wait is bounded: a check that hangs fails after its deadline.
"""

import argparse
import asyncio
import contextlib
import json
import sys
import time
import traceback
import uuid

from clients import CLIENTS, Unavailable, described

DEADLINE = 240  # seconds for one check
PATIENCE = 90  # seconds after which a client gives up a call, unless a check says otherwise
TOOLS = {
    "checkin_client",
    "send_message",
    "send_message_and_wait",
    "get_messages",
    "get_my_identity",
    "list_clients",
    "message_status",
}

PROMPTS = {
    "check_inbox": ["client_id"],
    "ask_agent": ["client_id", "recipient_id", "question"],
    "introduce_yourself": ["client_id"],
}


class Agent:
    """One client's connection and the id it speaks as."""

    def __init__(self, client, client_id):
        self.client, self.id = client, client_id

    async def call(self, tool, patience=PATIENCE, **arguments):
        return await self.client.call(tool, arguments, patience)

    async def send(self, to, text, **more):
        answer = await self.call(
            "send_message", sender_id=self.id, recipient_id=to.id, message=text, **more
        )
        return answer.ok()["results"][0]

    async def get(self, **more):
        return (await self.call("get_messages", client_id=self.id, **more)).ok()

    async def texts(self, **more):
        return [m["text"] for m in (await self.get(**more))["messages"]]

    async def ask(self, to, text, timeout=50, **more):
        answer = await self.call(
            "send_message_and_wait",
            sender_id=self.id,
            recipient_id=to.id,
            message=text,
            timeout=timeout,
            **more,
        )
        return answer.ok()


def same(got, wanted):
    assert got == wanted, f"got {got!r:.300}, wanted {wanted!r:.300}"


async def handed_over(reader, text, timeout=30):
    """Until a look at the inbox no longer shows `text`. What was answered is acknowledged only when its last byte has arrived,
    so a look in the same moment may still show it, and then says that a reader is receiving it."""
    give_up = time.monotonic() + timeout
    while text in (look := await reader.client.read(f"inbox://{reader.id}")):
        assert "A reader is receiving" in look, look
        assert time.monotonic() < give_up, f"{reader.id} still shows {text!r}"
        await asyncio.sleep(0.02)


async def waiting(reader, writer, wanted=True, timeout=120):
    """Until the server says that `reader` has a blocking call open, or has none: its presence in a directory look-up."""
    (await writer.call("checkin_client", client_id=reader.id, name="reader")).ok()
    give_up = time.monotonic() + timeout
    while time.monotonic() < give_up:
        clients = (await writer.call("list_clients", query=reader.id)).ok()["clients"]
        if any(c["client_id"] == reader.id and c["waiting"] for c in clients) == wanted:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"{reader.id} was never seen {'waiting' if wanted else 'gone'}")


CHECKS = []
LONG = {"wait", "give up"}  # groups that mostly wait


def check(group):
    """The next function is a check of that group; its docstring is its line in the output."""

    def add(function):
        CHECKS.append((group, function))
        return function

    return add


# --- the checks: each gets three fresh agents ---


@check("tools")
async def tools(a, b, c):
    """the seven tools are listed, each with its schemas"""
    listed = await a.client.tools()
    assert {tool["name"] for tool in listed} == TOOLS, listed
    for tool in listed:
        assert tool["inputSchema"]["type"] == "object", tool
        assert tool.get("outputSchema", "not shown by this library"), tool


@check("talk")
async def check_in(a, b, c):
    """an agent that checked in is found by name by the other"""
    answer = await b.call(
        "checkin_client", client_id=b.id, name="Bob", capabilities="answers questions"
    )
    assert not answer.is_error and answer.text.strip(), answer.text
    clients = (await a.call("list_clients", query=b.id)).ok()["clients"]
    assert [(x["client_id"], x["name"]) for x in clients] == [(b.id, "Bob")], clients


@check("talk")
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


@check("talk")
async def status(a, b, c):
    """message_status follows a message from queued to delivered"""
    sent = await a.send(b, "where am I?")

    async def state():
        answer = await a.call("message_status", sender_id=a.id, message_ids=[sent["message_id"]])
        return answer.ok()["messages"][0]["state"]

    assert await state() == "queued"
    same(await b.texts(), ["where am I?"])
    give_up = time.monotonic() + 30
    while await state() not in ("delivered", "acknowledged"):
        assert time.monotonic() < give_up, await state()
        await asyncio.sleep(0.1)


@check("talk")
async def woken(a, b, c):
    """a blocking get_messages is woken by a send"""
    reader = asyncio.create_task(b.texts(wait_seconds=80))
    await waiting(b, a)
    sent = await a.send(b, "wake up")
    assert sent["recipient"]["presence"] == "waiting", sent
    same(await reader, ["wake up"])


@check("talk")
async def ask_and_reply(a, b, c):
    """send_message_and_wait returns the reply that names its message"""
    question = asyncio.create_task(a.ask(b, "what is 6 x 7?"))
    (message,) = (await b.get(wait_seconds=50))["messages"]
    sent = await b.send(a, "42", in_reply_to=message["message_id"])
    assert sent["status"] == "replied", sent
    answer = await question
    assert answer["status"] == "replied" and answer["message_id"] == message["message_id"], answer
    assert answer["reply"]["text"] == "42" and answer["reply"]["from"] == b.id, answer
    assert answer["reply"]["in_reply_to"] == message["message_id"], answer
    same(await a.texts(), [])  # not a second time


@check("talk")
async def plain_reply(a, b, c):
    """a reply without in_reply_to answers the wait too"""
    question = asyncio.create_task(a.ask(b, "are you there?"))
    await b.get(wait_seconds=50)
    await b.send(a, "yes")
    assert (await question)["reply"]["text"] == "yes"


@check("talk")
async def third_party(a, b, c):
    """a third party's message does not end the wait and is kept"""
    question = asyncio.create_task(a.ask(b, "only you, please"))
    (message,) = (await b.get(wait_seconds=50))["messages"]
    await c.send(a, "me first!")
    await asyncio.sleep(0.3)
    assert not question.done(), await question
    await b.send(a, "here", in_reply_to=message["message_id"])
    answer = await question
    assert answer["reply"]["from"] == b.id and answer["other_messages"] == 1, answer
    same(await a.texts(), ["me first!"])


@check("talk")
async def no_answer(a, b, c):
    """no reply in time says so, and the late reply is in the inbox"""
    answer = await a.ask(b, "anyone?", timeout=1)
    assert answer["status"] == "pending" and not answer.get("reply"), answer
    (message,) = (await b.get())["messages"]
    sent = await b.send(a, "sorry, late", in_reply_to=message["message_id"])
    assert sent["status"] == "queued", sent
    same(await a.texts(), ["sorry, late"])


@check("give up")
async def own_timeout(a, b, c):
    """a client that gave up waiting loses nothing that is sent afterwards"""
    try:
        await b.get(wait_seconds=50, patience=1)
    except Exception as error:  # each library has its own class for it
        assert "timed out" in str(error).lower() or "timeout" in str(error).lower(), error
    else:
        raise AssertionError("the call did not time out")
    if b.client.tells_of_giving_up:
        await waiting(b, a, False)
    else:
        same(await b.texts(wait_seconds=1), [])  # the next blocking call ends the older one
    await a.send(b, "after the timeout")
    same(await b.texts(wait_seconds=5), ["after the timeout"])


@check("killed")
async def killed(a, b, c):
    """a client killed while it waits loses nothing that is sent afterwards"""
    other = await asyncio.create_subprocess_exec(
        sys.executable, __file__, *b.block, "--block-as", b.id
    )
    try:
        await waiting(b, a)
    finally:
        other.kill()
        await other.wait()
    await waiting(b, a, False)
    await a.send(b, "after the kill")
    same(await b.texts(wait_seconds=5), ["after the kill"])


@check("talk")
async def in_order(a, b, c):
    """messages arrive in the order in which they were accepted"""
    texts = [f"number {n}" for n in range(30)]
    for text in texts:
        await a.send(b, text)
    first = await b.get(max_messages=10)
    assert first["remaining"] == 20, first["remaining"]
    got = [m["text"] for m in first["messages"]] + await b.texts()
    same(got, texts)


@check("talk")
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


@check("talk")
async def many_recipients(a, b, c):
    """one send reaches several recipients"""
    answer = await a.call(
        "send_message", sender_id=a.id, recipients=[b.id, c.id], message="to you all"
    )
    results = answer.ok()["results"]
    assert [r["recipient_id"] for r in results] == [b.id, c.id], results
    same(await b.texts(), ["to you all"])
    same(await c.texts(), ["to you all"])


@check("talk")
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


@check("errors")
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


@check("talk")
async def identity(a, b, c):
    """get_my_identity explains itself without arguments"""
    answer = await a.call("get_my_identity")
    answer.ok()
    assert answer.text.strip()


@check("errors")
async def unknown_tool(a, b, c):
    """a tool that does not exist is an error that does not end the session"""
    try:
        answer = await a.call("no_such_tool")
    except Unavailable:
        raise
    except Exception as error:
        assert "no_such_tool" in str(error) or "unknown" in str(error).lower(), error
    else:
        assert answer.is_error
    await a.client.tools()


@check("wait")
async def long_wait(a, b, c):
    """a wait of 65 s is woken by a message, and one that nobody answers ends by itself"""
    default = b.client.default_patience
    patience = PATIENCE if default else None  # what the library does by itself, where it waits that long
    reader = asyncio.create_task(b.texts(wait_seconds=85, patience=patience))
    question = asyncio.create_task(a.ask(c, "anyone?", timeout=65, patience=patience))
    done, _ = await asyncio.wait([reader, question], return_when=asyncio.FIRST_COMPLETED)
    assert done == {question}, await reader
    assert (await question)["status"] == "pending", await question
    await a.send(b, "after 65 s")
    same(await reader, ["after 65 s"])


async def held(client, kind):
    """What `client` finds listed, if it can list that kind at all."""
    try:
        return await getattr(client, kind)()
    except Unavailable:
        return None


@check("resources")
async def resources(a, b, c):
    """the guide, the directory and one's inbox can be read, and reading takes nothing"""
    assert {"guide://usage", "clients://"} <= set(await a.client.resources())
    templates = await held(a.client, "templates")
    assert templates is None or "inbox://{client_id}" in templates, templates
    assert "send_message" in await a.client.read("guide://usage")
    (await b.call("checkin_client", client_id=b.id, name="Bob")).ok()
    assert b.id in await a.client.read("clients://")
    await a.send(b, "not taken by a look")
    for _ in range(2):
        assert "not taken by a look" in await b.client.read(f"inbox://{b.id}")
    same(await b.texts(), ["not taken by a look"])
    await handed_over(b, "not taken by a look")


@check("subscription")
async def subscription(a, b, c):
    """a watched inbox is reported when mail arrives, and stays unread"""
    uri = f"inbox://{b.id}"
    async with b.client.watch(uri) as changed:
        for text in ("first", "second"):
            await a.send(b, text)
            same(await asyncio.wait_for(changed(), 20), uri)
    same(await b.texts(), ["first", "second"])


@check("prompts")
async def prompts(a, b, c):
    """the three prompts are listed and rendered"""
    listed = await held(a.client, "prompts")
    assert listed is None or {one["name"] for one in listed} >= set(PROMPTS), listed
    given = {"client_id": a.id, "recipient_id": b.id, "question": "Which port?"}
    for name, wanted in PROMPTS.items():
        said = await a.client.prompt(name, {each: given[each] for each in wanted})
        assert all(given[each] in said for each in wanted), (name, said)


def causes(error):
    """The exceptions inside nested groups, which is how the SDK reports one from inside a connection."""
    if isinstance(error, BaseExceptionGroup):
        return [cause for inner in error.exceptions for cause in causes(inner)]
    return [error]


async def run(function, urls, args):
    tag = uuid.uuid4().hex[:8]  # fresh ids: no check sees another one's mail
    async with contextlib.AsyncExitStack() as stack:
        agents = []
        for name, url in zip(("alice", "bob", "carol"), (urls[0], urls[1], urls[0])):
            connection = CLIENTS[args.client].connect(url, args.mode)
            agent = Agent(await stack.enter_async_context(connection), f"{name}-{tag}")
            agent.block = [args.client, url, "--mode", args.mode]
            agents.append(agent)
        await function(*agents)


async def verdict(group, function, urls, args):
    """Runs one check and prints its line. Whether it did not fail."""
    started = time.monotonic()
    title = f"[{group}] {function.__doc__}"
    try:
        await asyncio.wait_for(run(function, urls, args), DEADLINE)
    except Exception as error:
        for cause in causes(error):
            if isinstance(cause, Unavailable):
                print(f"n/a  {title}: {cause}", flush=True)
                return True
            traceback.print_exception(cause, file=sys.stdout, limit=-4)
        print(f"FAIL {title} ({time.monotonic() - started:.1f} s)", flush=True)
        return False
    print(f"ok   {title} ({time.monotonic() - started:.1f} s)", flush=True)
    return True


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("client", choices=CLIENTS)
    parser.add_argument("base", nargs="+")
    parser.add_argument("--mode", default="auto", choices=["auto", "legacy"])
    parser.add_argument("--only", default="", help="run the checks whose name contains this")
    parser.add_argument("--part", choices=["long", "short"])
    parser.add_argument("--block-as", help=argparse.SUPPRESS)
    args = parser.parse_args()
    connect = CLIENTS[args.client].connect
    if args.block_as:
        async with connect(args.base[0], args.mode) as client:
            await Agent(client, args.block_as).get(wait_seconds=80)
        return 0
    async with connect(args.base[0] + "/mcp", args.mode) as client:
        print(described(args.client, args.mode, client.revision), flush=True)
    urls = [args.base[0] + "/mcp", args.base[-1] + "/mcp/"]
    chosen = [(group, one) for group, one in CHECKS if args.only in one.__name__]
    held = []
    if args.part != "short":  # they take their time side by side
        long = [verdict(group, one, urls, args) for group, one in chosen if group in LONG]
        held += await asyncio.gather(*long)
    if args.part != "long":
        held += [await verdict(group, one, urls, args) for group, one in chosen if group not in LONG]
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
