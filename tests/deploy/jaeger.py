"""Stands in for Jaeger where its image cannot be had: takes spans over OTLP/gRPC on 4317, keeps them in memory, and answers on 16686 what
Jaeger's own API answers for `GET /api/traces/ID`, as far as the tests look at it. tests/deploy/base-images makes an image of it.
"""

import json
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

traces = {}  # by trace id: spans, as the API shows them


def reference(kind, trace_id, span_id):
    return {"refType": kind, "traceID": trace_id.hex(), "spanID": span_id.hex()}


def shown(span, service):
    parents = [reference("CHILD_OF", span.trace_id, span.parent_span_id)] if span.parent_span_id else []
    return {
        "traceID": span.trace_id.hex(),
        "spanID": span.span_id.hex(),
        "operationName": span.name,
        "references": parents + [reference("FOLLOWS_FROM", link.trace_id, link.span_id) for link in span.links],
        "processID": service,
    }


def shown_trace(trace_id, spans):
    processes = {span["processID"]: {"serviceName": span["processID"]} for span in spans}
    return {"traceID": trace_id, "spans": spans, "processes": processes}


class Receiver(trace_service_pb2_grpc.TraceServiceServicer):
    def Export(self, request, context):
        for resource in request.resource_spans:
            service = next((each.value.string_value for each in resource.resource.attributes if each.key == "service.name"), None)
            for scope in resource.scope_spans:
                for span in scope.spans:
                    traces.setdefault(span.trace_id.hex(), []).append(shown(span, service))
        return trace_service_pb2.ExportTraceServiceResponse()


class Api(BaseHTTPRequestHandler):
    def do_GET(self):
        trace_id = self.path.removeprefix("/api/traces/")
        spans = traces.get(trace_id)
        body = json.dumps({"data": [shown_trace(trace_id, spans)] if spans else []}).encode()
        self.send_response(200 if spans else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


receiver = grpc.server(futures.ThreadPoolExecutor(max_workers=4))
trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Receiver(), receiver)
receiver.add_insecure_port("0.0.0.0:4317")
receiver.start()
ThreadingHTTPServer(("", 16686), Api).serve_forever()
