"""A proxy that refuses once: what a client makes of HTTP 429 and 503 with `Retry-After`, and of a tool error.

    refusals.py PORT HOST:PORT

A POST to /HOW/NAME/mcp goes to the server's /mcp, except the first `tools/call` of each NAME: that one is answered with status 429 or
503, or where HOW is `tool` with a tool error as the server words it. Answers come as a whole: nothing here is to be waited for.
"""

import http.client
import http.server
import json
import sys

SAID = "this server runs 2 calls at once, which is its limit; nothing was done. Try again in 1 s"
KEPT = ("content-type", "accept", "mcp-session-id", "mcp-protocol-version", "mcp-method", "mcp-name")


class Refusing(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    refused = set()

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        _, how, name, _ = self.path.split("/", 3)
        asked = json.loads(body)
        if asked.get("method") == "tools/call" and (how, name) not in self.refused:
            self.refused.add((how, name))
            return self.refuse(how, asked["id"])
        self.forward(body)

    do_GET = do_DELETE = lambda self: self.forward(None)

    def refuse(self, how, number):
        if how == "tool":
            result = {"content": [{"type": "text", "text": SAID}], "isError": True}
            # What 2026-07-28 wants of every result; older clients pass over it.
            result |= {"resultType": "complete"}
            answer = json.dumps({"jsonrpc": "2.0", "id": number, "result": result})
            return self.answer(200, [("content-type", "application/json")], answer.encode())
        self.answer(int(how), [("content-type", "text/plain"), ("retry-after", "1")], SAID.encode())

    def forward(self, body):
        upstream = http.client.HTTPConnection(sys.argv[2], timeout=60)
        headers = {name: self.headers[name] for name in KEPT if self.headers[name]}
        upstream.request(self.command, "/mcp", body, headers)
        answer = upstream.getresponse()
        kept = [(name, value) for name, value in answer.getheaders() if name.lower() in KEPT]
        self.answer(answer.status, kept, answer.read())
        upstream.close()

    def answer(self, status, headers, body):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Refusing).serve_forever()
