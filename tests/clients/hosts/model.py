"""A stand-in for the model behind an agent host: it answers by script, and keeps what it was asked.

It speaks as much of Anthropic's Messages API (https://docs.anthropic.com/en/api/messages-streaming) and of OpenAI's Responses API
(https://platform.openai.com/docs/api-reference/responses-streaming) as Claude Code and Codex CLI ask of it. A script is a function from
a `Request` to what the model does next: the text that it says, or a `Call` of a tool. Nothing here looks at credentials: any will do.
"""

import dataclasses
import http.server
import json
import threading
import uuid

ENOUGH = 12  # turns: a host that asks for more runs in circles


@dataclasses.dataclass(frozen=True)
class Tool:
    name: str
    namespace: str | None = None  # only in the Responses API


@dataclasses.dataclass(frozen=True)
class Call:
    tool: Tool
    arguments: dict


@dataclasses.dataclass
class Request:
    """One turn that the model is asked for."""

    told: list  # the conversation, each part as JSON text, oldest first
    tools: list  # those that it may call

    def heard(self, text):
        return any(text in part for part in self.told)


class Model(http.server.ThreadingHTTPServer):
    """Listens on a port of its own until it is closed."""

    daemon_threads = True

    def __init__(self, script):
        super().__init__(("127.0.0.1", 0), Handler)
        self.script, self.requests, self.errors = script, [], []
        self.url = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()

    def handle_error(self, request, client_address):
        pass  # a host that ends hangs up

    def turn(self, told, tools):
        """What the script makes of a turn. Turns without the mailbox's tools, such as for a session's title, it does not see."""
        request = Request([json.dumps(part, ensure_ascii=False) for part in told], tools)
        if not any(tool.name.endswith("get_messages") for tool in tools):
            return "done"
        self.requests.append(request)
        try:
            assert len(self.requests) <= ENOUGH, "it goes round in circles"
            return self.script(request)
        except Exception as error:  # the host would only try again: the check has to hear of it
            self.errors.append(error)
            return "done"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        length = int(self.headers.get("content-length") or 0)
        body = json.loads(self.rfile.read(length) or b"{}")
        path = self.path.partition("?")[0]
        if path == "/v1/messages":
            parts = [part for message in body["messages"] for part in pieces(message["content"])]
            does = self.server.turn(parts, [Tool(tool["name"]) for tool in body.get("tools", [])])
            self.events(messages_api(does, body["model"]))
        elif path == "/v1/messages/count_tokens":
            self.json(200, {"input_tokens": 1})
        elif path == "/v1/responses":
            does = self.server.turn(body["input"], list(tools(body.get("tools", []))))
            self.events(responses_api(does))
        else:
            self.json(404, {"error": {"type": "not_found_error", "message": "no such path"}})

    def do_GET(self):
        self.json(404, {"error": {"type": "not_found_error", "message": "no such path"}})

    do_HEAD = do_GET

    def events(self, events):
        lines = (f"event: {one['type']}\ndata: {json.dumps(one)}\n\n" for one in events)
        self.answer(200, "text/event-stream", "".join(lines).encode())

    def json(self, status, value):
        self.answer(status, "application/json", json.dumps(value).encode())

    def answer(self, status, kind, body):
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_):
        pass


def pieces(content):
    return [content] if isinstance(content, str) else content


def tools(offered):
    """Of the Responses API, where a namespace holds the tools of one MCP server."""
    for one in offered:
        if one["type"] == "namespace":
            yield from (Tool(each["name"], one["name"]) for each in one["tools"])
        elif "name" in one:
            yield Tool(one["name"])


def messages_api(does, model):
    if isinstance(does, str):
        block, stop = {"type": "text", "text": ""}, "end_turn"
        delta = {"type": "text_delta", "text": does}
    else:
        identity = f"toolu_{uuid.uuid4().hex[:24]}"
        block, stop = {"type": "tool_use", "id": identity, "name": does.tool.name, "input": {}}, "tool_use"
        delta = {"type": "input_json_delta", "partial_json": json.dumps(does.arguments)}
    message = {
        "id": f"msg_{uuid.uuid4().hex[:24]}",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 1, "output_tokens": 1},
    }
    yield {"type": "message_start", "message": message}
    yield {"type": "content_block_start", "index": 0, "content_block": block}
    yield {"type": "content_block_delta", "index": 0, "delta": delta}
    yield {"type": "content_block_stop", "index": 0}
    ended = {"stop_reason": stop, "stop_sequence": None}
    yield {"type": "message_delta", "delta": ended, "usage": {"output_tokens": 1}}
    yield {"type": "message_stop"}


def responses_api(does):
    response = {"id": f"resp_{uuid.uuid4().hex[:24]}"}
    if isinstance(does, str):
        said = {"type": "output_text", "text": does, "annotations": []}
        item = {"type": "message", "role": "assistant", "id": "msg_1", "content": [said]}
    else:
        item = {
            "type": "function_call",
            "id": f"fc_{uuid.uuid4().hex[:24]}",
            "call_id": f"call_{uuid.uuid4().hex[:24]}",
            "name": does.tool.name,
            "arguments": json.dumps(does.arguments),
        }
        if does.tool.namespace:
            item["namespace"] = does.tool.namespace
    usage = {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2}
    yield {"type": "response.created", "response": response}
    yield {"type": "response.output_item.done", "output_index": 0, "item": item}
    yield {"type": "response.completed", "response": response | {"usage": usage}}
