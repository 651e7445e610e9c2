#!/usr/bin/env python3
"""Prints a trace as a tree, from Jaeger's query API: trace_tree.py [--wait SECONDS] [--expect SERVICE] … URL TRACE_ID

Waits until the trace holds a span of each expected service and has stopped growing: spans of one request arrive in several batches.
Exit code 1 when that does not come about. The order depends on the spans alone: start, then operation, then identity.
"""
import argparse
import json
import sys
import time
import urllib.error
import urllib.request

# Attributes that tell spans of one name apart, in the order in which they are shown.
SHOWN = ("http.response.status_code", "webhook", "key")


def tree(trace):
    """The lines of the tree of TRACE, an element of `data` in Jaeger's answer."""
    spans = {span["spanID"]: span for span in trace["spans"]}
    children = {}
    for span in spans.values():
        # The root's parent is the caller's own span, which nobody reported.
        children.setdefault(next((parent for parent in parents(span) if parent in spans), None), []).append(span)
    rows = []

    def walk(parent, indent):
        siblings = sorted(children.get(parent, ()), key=lambda s: (s["startTime"], -s["duration"], s["operationName"], s["spanID"]))
        for position, span in enumerate(siblings):
            last = position == len(siblings) - 1
            branch, below = ("", "") if parent is None else ("└─ ", "   ") if last else ("├─ ", "│  ")
            rows.append((component(trace, span), indent + branch + span["operationName"] + attributes(span), span["duration"]))
            walk(span["spanID"], indent + below)

    walk(None, "")
    start = min(span["startTime"] for span in spans.values())
    end = max(span["startTime"] + span["duration"] for span in spans.values())
    width = max(len(name) for name, _, _ in rows)
    services = sorted({name.split(" ")[0] for name, _, _ in rows})
    head = f"trace {trace['traceID']}: {len(rows)} spans of {', '.join(services)}, {milliseconds(end - start).strip()}"
    return [head] + [f"{milliseconds(duration)}  {name:<{width}}  {text}" for name, text, duration in rows]


def parents(span):
    return [reference["spanID"] for reference in span.get("references", ()) if reference["refType"] == "CHILD_OF"]


def component(trace, span):
    """The service, and which etcd member or API server it was where its name is short enough for a person."""
    process = trace["processes"][span["processID"]]
    instance = next((tag["value"] for tag in process.get("tags", ()) if tag["key"] == "service.instance.id"), "")
    return f"{process['serviceName']} {instance}" if 0 < len(instance) <= 16 else process["serviceName"]


def attributes(span):
    tags = {tag["key"]: tag["value"] for tag in span.get("tags", ())}
    shown = [str(tags[key]) for key in SHOWN if key in tags]
    return f"  [{', '.join(shown)}]" if shown else ""


def milliseconds(microseconds):
    return f"{microseconds / 1000:8.1f} ms"


def fetch(url, trace_id):
    """The trace, or None while Jaeger does not know it."""
    try:
        with urllib.request.urlopen(f"{url}/api/traces/{trace_id}", timeout=5) as answer:
            return json.load(answer)["data"][0]
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        raise


def complete(trace, expected):
    return trace is not None and expected <= {process["serviceName"] for process in trace["processes"].values()}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--wait", type=float, default=30, help="seconds (30)")
    parser.add_argument("--expect", action="append", default=[], metavar="SERVICE")
    parser.add_argument("url")
    parser.add_argument("trace_id")
    options = parser.parse_args()
    deadline = time.monotonic() + options.wait
    before, trace = None, fetch(options.url, options.trace_id)
    # Exporters send every five seconds: a trace that did not grow for longer than that has arrived.
    while not complete(trace, set(options.expect)) or before != len(trace["spans"]):
        if time.monotonic() > deadline:
            break
        before = len(trace["spans"]) if trace else None
        time.sleep(6)
        trace = fetch(options.url, options.trace_id)
    if trace:
        print("\n".join(tree(trace)))
    if not complete(trace, set(options.expect)):
        found = sorted({process["serviceName"] for process in trace["processes"].values()}) if trace else []
        sys.exit(f"trace {options.trace_id}: expected spans of {', '.join(options.expect)}, found {', '.join(found) or 'none'}")


if __name__ == "__main__":
    main()
