"""Asks the Prometheus and the Jaeger of the profile `observability` what a user would ask them. Ends with 1 and says why, if it is not there
within a minute.

    monitoring.py targets PROMETHEUS REPLICAS       each replica is scraped
    monitoring.py rules PROMETHEUS                  each rule of deploy/prometheus/rules.yml was evaluated without a fault
    monitoring.py metrics PROMETHEUS REPLICAS       each replica has metrics of ours, and what was accepted was delivered
    monitoring.py dashboards PROMETHEUS             each dashboard has a query that returns data
    monitoring.py calm PROMETHEUS                   no span was dropped, no alert fires
    monitoring.py trace JAEGER SENT RECEIVED        the trace of a send, and the trace of the receive that is linked to it
"""

import json
import pathlib
import re
import sys
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/observe"))

import check_dashboards  # noqa: E402


def fetched(url):
    with urllib.request.urlopen(url, timeout=5) as answer:
        return json.load(answer)


def until(faults):
    """Asks again until `faults()` names none. What does not answer, or has nothing yet, may still come."""
    for _ in range(60):
        try:
            found = faults()
        except OSError as fault:
            found = fault
        if not found:
            return
        time.sleep(1)
    sys.exit(f"still: {found}")


def value(prometheus, expression):
    """Of a query that has one series, or none."""
    series = check_dashboards.Live(prometheus).query(expression)
    return float(series[0]["value"][1]) if series and not isinstance(series, str) else None


def targets(prometheus, replicas):
    def faults():
        found = fetched(f"{prometheus}/api/v1/targets?state=active")["data"]["activeTargets"]
        down = [f"{each['scrapeUrl']}: {each['health']} {each['lastError']}" for each in found if each["health"] != "up"]
        return down or (len(found) != int(replicas) and f"{len(found)} targets")

    until(faults)


def rules(prometheus):
    wanted = set(re.findall(r"^ *- (?:alert|record): (\S+)", (ROOT / "deploy/prometheus/rules.yml").read_text(), re.M))

    def faults():
        groups = fetched(f"{prometheus}/api/v1/rules")["data"]["groups"]
        found = {rule["name"]: rule for group in groups for rule in group["rules"]}
        return sorted(wanted ^ set(found)) or [f"{name}: {rule['health']} {rule.get('lastError', '')}" for name, rule in found.items() if rule["health"] != "ok"]

    until(faults)
    print(f"     {len(wanted)} rules")


def metrics(prometheus, replicas):
    each = 'count(count by (instance) ({__name__=~"mcp_messaging_.+"}))'
    passed = 'sum(mcp_messaging_messages_total{event="%s"})'

    def faults():
        accepted, delivered = (value(prometheus, passed % event) for event in ("accepted", "delivered"))
        if value(prometheus, each) != int(replicas):
            return f"metrics of {value(prometheus, each)} replicas"
        return not (accepted and accepted == delivered) and f"{accepted} accepted, {delivered} delivered"

    until(faults)
    print(f"     {value(prometheus, 'count({__name__=~%r})' % 'mcp_messaging_.+'):.0f} series, {value(prometheus, passed % 'accepted'):.0f} messages")


def dashboards(prometheus):
    for file in sorted((ROOT / "deploy/grafana/dashboards").glob("*.json")):
        board = json.loads(file.read_text())
        asked = check_dashboards.queries(board)

        def faults(board=board, asked=asked):
            return len(list(check_dashboards.empty(board, check_dashboards.Live(prometheus)))) >= asked and "no query returns data"

        until(faults)
        without = len(list(check_dashboards.empty(board, check_dashboards.Live(prometheus))))
        print(f"     {file.stem}: {asked - without} of {asked} queries have data")


def calm(prometheus):
    lost, firing = value(prometheus, "sum(mcp_messaging_spans_dropped_total)"), check_dashboards.Live(prometheus).query('ALERTS{alertstate="firing"}')
    if lost != 0 or firing:
        sys.exit(f"spans dropped: {lost}; firing: {firing}")


def trace(jaeger, sent, received):
    """As docs/observability.md says: the span that hands a message out has a link to the span that took it."""

    def span(trace_id, name):
        for each in fetched(f"{jaeger}/api/traces/{trace_id}")["data"]:
            for one in each["spans"]:
                if one["operationName"] == name and each["processes"][one["processID"]]["serviceName"] == "mcp-messaging":
                    return one
        return None

    def faults():
        send, receive = span(sent, "tools/call send_message"), span(received, "tools/call get_messages")
        if not send or not receive:
            return f"send: {send}, receive: {receive}"
        linked = {(each["traceID"], each["spanID"]) for each in receive["references"]}
        return (sent, send["spanID"]) not in linked and f"linked to {linked}"

    until(faults)


{each.__name__: each for each in (targets, rules, metrics, dashboards, calm, trace)}[sys.argv[1]](*sys.argv[2:])
