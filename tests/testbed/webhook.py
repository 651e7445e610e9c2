#!/usr/bin/env python3
"""A mutating admission webhook that traces itself: webhook.py ADDRESS PORT CERTIFICATE KEY OTLP_HTTP [URL IDENTITY CA]

It annotates the objects that it is shown, and continues the API server's trace: one span for each request, with the parent of the request's
`traceparent` header, sent as OTLP/HTTP JSON to OTLP_HTTP/v1/traces. What a webhook with an OpenTelemetry library does, without one.
An object's annotation demo.clustertracing.dev/seconds is how long it takes for its answer.
With URL it asks an API server back within each request, in the same trace: as IDENTITY (a file with certificate and key), trusting CA.
"""
import base64
import json
import re
import secrets
import ssl
import sys
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
SPAN_KIND_SERVER = 2


def sampled_parent(header):
    """(trace, span) of a sampled traceparent header; None for any other."""
    match = TRACEPARENT.fullmatch(header or "")
    if match and int(match[3], 16) & 1:
        return match[1], match[2]
    return None


def review_response(review):
    """The AdmissionReview that allows the object of REVIEW, annotated."""
    request = review["request"]
    patch = [{"op": "add", "path": "/metadata/annotations/demo.clustertracing.dev~1seen-by", "value": "webhook"}]
    if "annotations" not in request["object"]["metadata"]:
        patch.insert(0, {"op": "add", "path": "/metadata/annotations", "value": {}})
    return {
        "apiVersion": review["apiVersion"],
        "kind": "AdmissionReview",
        "response": {
            "uid": request["uid"],
            "allowed": True,
            "patchType": "JSONPatch",
            "patch": base64.b64encode(json.dumps(patch).encode()).decode(),
        },
    }


def span_request(parent, own, name, start, end):
    """An OTLP export request with one span, OWN."""
    trace, span = parent
    return {"resourceSpans": [{
        "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "demo-webhook"}}]},
        "scopeSpans": [{"scope": {"name": "webhook.py"}, "spans": [{
            "traceId": trace, "spanId": own, "parentSpanId": span, "name": name, "kind": SPAN_KIND_SERVER,
            "startTimeUnixNano": str(start), "endTimeUnixNano": str(end),
        }]}],
    }]}


def asker(url, identity, ca):
    """A function that asks URL within a trace."""
    context = ssl.create_default_context(cafile=ca)
    context.load_cert_chain(identity)

    def ask(trace, span):
        request = urllib.request.Request(url, headers={"traceparent": f"00-{trace}-{span}-01"})
        urllib.request.urlopen(request, timeout=5, context=context).close()
    return ask


def main(address, port, certificate, key, otlp, *back):
    ask_back = asker(*back) if back else None

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            start = time.time_ns()
            review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            parent, own = sampled_parent(self.headers.get("traceparent")), secrets.token_hex(8)
            if parent and ask_back:
                ask_back(parent[0], own)
            annotations = review["request"]["object"]["metadata"].get("annotations", {})
            time.sleep(float(annotations.get("demo.clustertracing.dev/seconds", 0)))
            body = json.dumps(review_response(review)).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            if parent:
                kind = review["request"]["resource"]["resource"]
                export = json.dumps(span_request(parent, own, f"mutate {kind}", start, time.time_ns())).encode()
                urllib.request.urlopen(urllib.request.Request(
                    f"{otlp}/v1/traces", export, {"Content-Type": "application/json"}), timeout=5).close()

    server = ThreadingHTTPServer((address, int(port)), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
