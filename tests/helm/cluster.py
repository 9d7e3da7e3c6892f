"""As much of a Kubernetes API as helm needs to install, upgrade, roll back and remove a release: objects are kept, nothing acts on them.

What it knows of the real one: discovery, lists with label selectors, create, apply, replace and delete, that a Secret's stringData becomes data, and
that some fields cannot be changed. An apply takes the whole object: fields of other owners are not merged. Schemas are not its business
(test_render.py holds manifests to them).
"""

import base64
import copy
import http.server
import itertools
import json
import re
import threading
import urllib.parse

import yaml

import chart

# Group and version, then the kinds by their plural.
KINDS = {
    "v1": {"namespaces": "Namespace", "secrets": "Secret", "configmaps": "ConfigMap", "services": "Service", "serviceaccounts": "ServiceAccount", "pods": "Pod"},
    "apps/v1": {"deployments": "Deployment", "statefulsets": "StatefulSet"},
    "batch/v1": {"jobs": "Job"},
    "policy/v1": {"poddisruptionbudgets": "PodDisruptionBudget"},
    "networking.k8s.io/v1": {"networkpolicies": "NetworkPolicy", "ingresses": "Ingress"},
    "autoscaling/v2": {"horizontalpodautoscalers": "HorizontalPodAutoscaler"},
}
# Paths of what Kubernetes does not let anybody change.
FIXED = {
    "Deployment": (("spec", "selector"),),
    "StatefulSet": (("spec", "selector"), ("spec", "serviceName"), ("spec", "volumeClaimTemplates"), ("spec", "podManagementPolicy")),
    "Job": (("spec", "selector"), ("spec", "template")),
    "Service": (("spec", "clusterIP"),),
    "Secret": (("type",),),
    "PersistentVolumeClaim": (("spec",),),
}


def at(document, path):
    for key in path:
        document = document.get(key, {})
    return document


def changed(old, new):
    """What of a document's fixed fields differs, as text."""
    return [".".join(path) for path in FIXED.get(old["kind"], ()) if at(old, path) != at(new, path)]


def fields(message):
    """The numbered fields of a protobuf message, those of texts and messages alone."""
    found, at = {}, 0

    def number():
        nonlocal at
        value = shift = 0
        while True:
            byte, at = message[at], at + 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(message):
        tag = number()
        size = number()
        if tag & 7 == 2:
            found.setdefault(tag >> 3, []).append(message[at : at + size])
            at += size
    return found


def document_of(body):
    """What was sent: YAML or JSON, or a Secret in protobuf, as helm keeps its releases."""
    if not body.startswith(b"k8s\0"):
        return yaml.safe_load(body)
    envelope = fields(body[4:])
    version, kind = (fields(envelope[1][0])[number][0].decode() for number in (1, 2))
    assert (version, kind) == ("v1", "Secret"), kind
    secret = fields(envelope[2][0])
    metadata = fields(secret[1][0])
    pairs = [fields(pair) for pair in metadata.get(11, [])]
    return {
        "apiVersion": version, "kind": kind, "type": secret[3][0].decode(),
        "metadata": {"name": metadata[1][0].decode(), "labels": {pair[1][0].decode(): pair[2][0].decode() for pair in pairs}},
        "data": {pair[1][0].decode(): base64.b64encode(pair[2][0]).decode() for pair in map(fields, secret[2])},
    }


def merged(there, patch):
    """A document with a merge patch of Helm 3; of lists, what stands in the patch is taken for the whole."""
    result = dict(there)
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif not key.startswith("$"):
            result[key] = merged(result.get(key) or {}, value) if isinstance(value, dict) else value
    return result


class Refused(Exception):
    """As an API server says it."""

    def __init__(self, code, reason, message):
        super().__init__(message)
        self.code = code
        self.status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "message": message, "code": code}


class Cluster:
    """Listens on loopback as long as its `with` lasts. `objects` is by kind and name, of one namespace; `asked` and `written` say what was, in order."""

    def __init__(self):
        self.objects, self.numbers, self.lock, self.asked = {}, itertools.count(1), threading.Lock(), []
        self.written = []

    def __enter__(self):
        cluster = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self):
                length = int(self.headers.get("Content-Length") or 0)
                body = self.rfile.read(length)
                code, said = cluster.respond(self.command, self.path, body)
                text = json.dumps(said).encode()
                self.send_response(code)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()

    def helm(self, *arguments, helm="4", stdin=None):
        address = f"http://127.0.0.1:{self.server.server_address[1]}"
        return chart.run(helm, *arguments, "--kube-apiserver", address, "--namespace", "mail", stdin=stdin)

    def named(self, kind, name):
        return self.objects.get((kind, name))

    def respond(self, method, target, body):
        url = urllib.parse.urlsplit(target)
        query = dict(urllib.parse.parse_qsl(url.query))
        with self.lock:
            self.asked.append((method, url.path))
            try:
                return self.discovery(url.path) or self.resource(method, url.path, query, body)
            except Refused as refused:
                return refused.code, refused.status

    @staticmethod
    def discovery(path):
        if path == "/version":
            return 200, {"major": "1", "minor": "34", "gitVersion": "v1.34.0"}
        if path == "/api":
            return 200, {"kind": "APIVersions", "versions": ["v1"]}
        if path == "/apis":
            versions = [{"groupVersion": name, "version": name.split("/")[1]} for name in KINDS if "/" in name]
            return 200, {"kind": "APIGroupList", "apiVersion": "v1", "groups": [
                {"name": version["groupVersion"].split("/")[0], "versions": [version], "preferredVersion": version} for version in versions
            ]}
        if path == "/openapi/v3":
            places = {name: "api/v1" if name == "v1" else f"apis/{name}" for name in KINDS}
            return 200, {"paths": {place: {"serverRelativeURL": f"/openapi/v3/{name}"} for name, place in places.items()}}
        if path.startswith("/openapi/v3/"):
            # No schemas, but the word of a server that it validates by itself.
            name = path.removeprefix("/openapi/v3/")
            group, _, version = name.rpartition("/")
            return 200, {"openapi": "3.0.0", "info": {"title": name, "version": "1"}, "paths": {
                f"/{kind}": {"patch": {
                    "x-kubernetes-group-version-kind": {"group": group, "version": version, "kind": kind},
                    "parameters": [{"name": "fieldValidation", "in": "query"}],
                    "responses": {},
                }}
                for kind in KINDS[name].values()
            }}
        for name, kinds in KINDS.items():
            if path == ("/api/v1" if name == "v1" else f"/apis/{name}"):
                verbs = ["create", "delete", "get", "list", "patch", "update", "watch"]
                return 200, {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": name, "resources": [
                    {"name": plural, "singularName": "", "namespaced": kind != "Namespace", "kind": kind, "verbs": verbs} for plural, kind in kinds.items()
                ]}
        return None

    def resource(self, method, path, query, body):
        found = re.fullmatch(r"/(?:api/(?P<core>v1)|apis/(?P<group>[^/]+/[^/]+))/namespaces/mail(?:/(?P<plural>[a-z]+)(?:/(?P<name>[^/]+))?)?", path)
        version = found and (found["core"] or found["group"])
        kind = found and KINDS.get(version, {}).get(found["plural"] or "namespaces")
        if not kind:
            raise Refused(404, "NotFound", f"the server could not find the requested resource: {method} {path}")
        if kind == "Namespace":
            return 200, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "mail"}}
        sent = document_of(body) if body and method != "DELETE" else None
        name = found["name"] or (sent and sent["metadata"]["name"])
        if method == "GET" and not name:
            return 200, self.list(version, kind, query)
        there = self.objects.get((kind, name))
        if method == "POST":
            if there:
                raise Refused(409, "AlreadyExists", f"{kind} {name} already exists")
            return 201, self.keep(sent)
        if not there and method == "PATCH" and "force" in query:
            return 201, self.keep(sent)
        if not there:
            raise Refused(404, "NotFound", f"{kind} {name} not found")
        if method == "DELETE":
            return 200, self.objects.pop((kind, name))
        if method in ("PUT", "PATCH"):
            wanted = sent if method == "PUT" or "force" in query else merged(there, sent)
            fixed = changed(there, self.as_kept(wanted))
            if fixed:
                raise Refused(422, "Invalid", f"{kind} {name} is invalid: {', '.join(fixed)}: field is immutable")
            return 200, self.keep(wanted)
        return 200, there

    def list(self, version, kind, query):
        wanted = dict(pair.split("=", 1) for pair in query.get("labelSelector", "").split(",") if pair)
        items = [
            document for (of, _), document in self.objects.items()
            if of == kind and wanted.items() <= document["metadata"].get("labels", {}).items()
        ]
        return {"apiVersion": version, "kind": f"{kind}List", "metadata": {"resourceVersion": str(next(self.numbers))}, "items": items}

    @staticmethod
    def as_kept(document):
        document = copy.deepcopy(document)
        for key, value in document.pop("stringData", {}).items():
            document.setdefault("data", {})[key] = base64.b64encode(value.encode()).decode()
        return document

    def keep(self, document):
        document = self.as_kept(document)
        self.written.append((document["kind"], document["metadata"]["name"]))
        document["metadata"] |= {"namespace": "mail", "resourceVersion": str(next(self.numbers)), "uid": f"u{next(self.numbers)}"}
        self.objects[document["kind"], document["metadata"]["name"]] = document
        return document
