"""The clients, each behind the same few words: what `conversation.py` says, said with one library.

A client that cannot do a thing raises `Unavailable` with the reason. Libraries are imported where they are used: each
lives in an environment of its own.

`patience` is how many seconds a call may take before the client itself gives up; `None` leaves the library's default.
"""

import contextlib
import json
from datetime import timedelta
from importlib.metadata import version


class Unavailable(Exception):
    """This client cannot do that; the text says why."""


class Answer:
    """What a tool call gave back."""

    def __init__(self, is_error, data, content):
        self.is_error, self.data = bool(is_error), data or {}
        self.text = "\n".join(part.get("text", "") for part in content)

    @classmethod
    def of(cls, result):
        raw = result.model_dump(by_alias=True)
        return cls(raw.get("isError"), raw.get("structuredContent"), raw["content"])

    def ok(self):
        assert not self.is_error, f"refused: {self.text[:300]}"
        return self.data


class Client:
    """One connection. The methods that a library has under the same name and shape are written once, here."""

    package = "mcp"
    default_patience = None  # seconds after which the library gives up a call by itself, where that is short
    tells_of_giving_up = True  # whether the server learns that a call was given up

    revision = None
    session = None  # what has list_tools and its like

    async def tools(self):
        return [tool.model_dump(by_alias=True) for tool in (await self.session.list_tools()).tools]

    async def call(self, tool, arguments, patience):
        raise NotImplementedError

    async def resources(self):
        return [str(one.uri) for one in (await self.session.list_resources()).resources]

    async def templates(self):
        listed = (await self.session.list_resource_templates()).model_dump(by_alias=True)
        return [one["uriTemplate"] for one in listed["resourceTemplates"]]

    async def read(self, uri):
        raw = (await self.session.read_resource(uri)).model_dump(by_alias=True)
        return "\n".join(one["text"] for one in raw["contents"])

    async def prompts(self):
        return [one.model_dump() for one in (await self.session.list_prompts()).prompts]

    async def prompt(self, name, arguments):
        raw = (await self.session.get_prompt(name, arguments)).model_dump(by_alias=True)
        return "\n".join(one["content"]["text"] for one in raw["messages"])

    def watch(self, uri):
        raise Unavailable("no subscriptions/listen in this revision")


class Sdk2(Client):
    """The official SDK, 2.x. `mode` is its own word: auto or legacy."""

    @classmethod
    @contextlib.asynccontextmanager
    async def connect(cls, url, mode):
        import mcp

        async with mcp.Client(url, mode=mode) as session:
            self = cls()
            self.session, self.revision = session, session.protocol_version
            yield self

    async def call(self, tool, arguments, patience):
        return Answer.of(
            await self.session.call_tool(tool, arguments, read_timeout_seconds=patience)
        )

    def watch(self, uri):
        if self.revision < "2026":
            return super().watch(uri)
        return self.listen(uri)

    @contextlib.asynccontextmanager
    async def listen(self, uri):
        async with self.session.listen(resource_subscriptions=[uri]) as events:

            async def changed():
                return str((await anext(events)).uri)

            yield changed


def seconds(patience):
    return None if patience is None else timedelta(seconds=patience)


class Sdk1(Client):
    """The official SDK, 1.x. It tells nobody when it gives up, and keeps its stream open."""

    tells_of_giving_up = False

    @classmethod
    @contextlib.asynccontextmanager
    async def connect(cls, url, mode):
        import mcp
        from mcp.client.streamable_http import streamable_http_client

        async with streamable_http_client(url) as (reads, writes, *_):
            async with mcp.ClientSession(reads, writes) as session:
                self = cls()
                self.session = session
                self.revision = (await session.initialize()).protocolVersion
                yield self

    async def call(self, tool, arguments, patience):
        return Answer.of(
            await self.session.call_tool(tool, arguments, read_timeout_seconds=seconds(patience))
        )


class FastMcp(Client):
    package = "fastmcp-slim"

    @classmethod
    @contextlib.asynccontextmanager
    async def connect(cls, url, mode):
        from fastmcp import Client as Library

        async with Library(url, mode=mode) as client:
            self = cls()
            self.client, self.session = client, client.session
            self.revision = client.session.protocol_version
            yield self

    async def tools(self):
        return [tool.model_dump(by_alias=True) for tool in await self.client.list_tools()]

    async def call(self, tool, arguments, patience):
        return Answer.of(await self.client.call_tool_mcp(tool, arguments, timeout=patience))

    async def resources(self):
        return [str(one.uri) for one in await self.client.list_resources()]

    async def templates(self):
        listed = await self.client.list_resource_templates()
        return [one.model_dump(by_alias=True)["uriTemplate"] for one in listed]

    async def read(self, uri):
        return "\n".join(one.text for one in await self.client.read_resource(uri))

    async def prompts(self):
        return [one.model_dump() for one in await self.client.list_prompts()]

    async def prompt(self, name, arguments):
        got = await self.client.get_prompt(name, arguments)
        return "\n".join(one.content.text for one in got.messages)

    def watch(self, uri):
        raise Unavailable("the library has no subscriptions/listen")


class LangChain(Client):
    """As its documentation begins: `get_tools()`, where each call is a session of its own."""

    package = "langchain-mcp-adapters"

    @classmethod
    @contextlib.asynccontextmanager
    async def connect(cls, url, mode):
        from langchain_mcp_adapters.client import MultiServerMCPClient

        self = cls()
        self.connection = {"transport": "http", "url": url}
        self.client = MultiServerMCPClient({"messaging": self.connection})
        about = await self.client.get_server_info(server_name="messaging")
        self.revision = about["messaging"].protocolVersion
        self.listed = {tool.name: tool for tool in await self.client.get_tools()}
        yield self

    async def tools(self):
        return [
            {"name": tool.name, "inputSchema": tool.args_schema}
            for tool in await self.client.get_tools()
        ]

    async def call(self, tool, arguments, patience):
        if tool not in self.listed:
            raise Unavailable("only listed tools can be called")
        # Its tools keep the connection that they were made with, and read this for each session.
        self.connection["session_kwargs"] = {"read_timeout_seconds": seconds(patience)}
        said = await self.listed[tool].ainvoke(
            {"type": "tool_call", "id": "1", "name": tool, "args": arguments}
        )
        data = said.artifact and said.artifact["structured_content"]
        content = said.content if isinstance(said.content, list) else [{"text": said.content}]
        return Answer(said.status == "error", data, content)

    async def templates(self):
        raise Unavailable("the library lists no resource templates")

    async def resources(self):
        return [
            blob.metadata["uri"].unicode_string() for blob in await self.client.get_resources()
        ]

    async def read(self, uri):
        blobs = await self.client.get_resources("messaging", uris=[uri])
        return "\n".join(blob.as_string() for blob in blobs)

    async def prompts(self):
        raise Unavailable("the library lists no prompts")

    async def prompt(self, name, arguments):
        said = await self.client.get_prompt("messaging", name, arguments=arguments)
        return "\n".join(one.content for one in said)


class McpUse(Client):
    package = "mcp-use"
    tells_of_giving_up = False  # SDK 1.x is below

    @classmethod
    @contextlib.asynccontextmanager
    async def connect(cls, url, mode):
        from mcp_use import MCPClient
        from mcp_use.client.middleware import Middleware

        self = cls()

        class Revision(Middleware):
            async def on_initialize(self_, context, call_next):
                result = await call_next(context)
                self.revision = result.protocolVersion
                return result

        client = MCPClient({"mcpServers": {"messaging": {"url": url}}}, middleware=[Revision()])
        self.session = await client.create_session("messaging")
        try:
            yield self
        finally:
            await client.close_all_sessions()

    async def tools(self):
        return [tool.model_dump(by_alias=True) for tool in await self.session.list_tools()]

    async def call(self, tool, arguments, patience):
        return Answer.of(await self.session.call_tool(tool, arguments, seconds(patience)))

    async def resources(self):
        return [str(one.uri) for one in await self.session.list_resources()]

    async def templates(self):
        raise Unavailable("the library lists no resource templates")

    async def prompts(self):
        return [one.model_dump() for one in await self.session.list_prompts()]


class OpenAiAgents(Client):
    """Gives up after 5 s unless told otherwise, and can be told only when it connects."""

    package = "openai-agents"
    default_patience = 5

    @classmethod
    @contextlib.asynccontextmanager
    async def connect(cls, url, mode):
        async with cls.server(url, 90) as server:
            self = cls()
            self.url, self.session = url, server
            self.revision = server.session.protocol_version
            yield self

    @staticmethod
    def server(url, patience):
        from agents.mcp import MCPServerStreamableHttp

        return MCPServerStreamableHttp({"url": url}, client_session_timeout_seconds=patience)

    async def tools(self):
        return [tool.model_dump(by_alias=True) for tool in await self.session.list_tools()]

    async def call(self, tool, arguments, patience):
        if patience in (None, 90):
            return Answer.of(await self.session.call_tool(tool, arguments))
        async with self.server(self.url, patience) as server:
            return Answer.of(await server.call_tool(tool, arguments))

    def watch(self, uri):
        raise Unavailable("the library has no subscriptions/listen")


CLIENTS = {
    "mcp-2": Sdk2,
    "mcp-1": Sdk1,
    "fastmcp": FastMcp,
    "langchain": LangChain,
    "mcp-use": McpUse,
    "openai-agents": OpenAiAgents,
}


def described(name, mode, revision):
    """The line by which a run says who spoke: `tests/clients/table.py` reads it."""
    client = CLIENTS[name]
    fields = {"package": client.package, "version": version(client.package), "mode": mode}
    return "client " + json.dumps(fields | {"language": "Python", "revision": revision})
