#!/usr/bin/env python3
"""Checks Grafana dashboards without Grafana: the rules of dashboard-linter, and every query on a live Prometheus, where it must
return data.

    tests/observe/check_dashboards.py DASHBOARD.json... [--prometheus http://127.0.0.1:9090]
"""

import argparse
import json
import pathlib
import re
import sys
import urllib.error
import urllib.parse
import urllib.request

# What Grafana puts in for its own variables, at a scrape each second.
BUILT_IN = {"__rate_interval": "30s", "__interval": "15s", "__range": "10m"}
MEASURING = ("timeseries", "stat", "gauge", "bargauge", "heatmap")


def panels(dashboard):
    for panel in dashboard["panels"]:
        yield panel
        yield from panel.get("panels", [])


def lint(dashboard):
    """Findings that need no Prometheus."""
    variables = {variable["name"]: variable for variable in dashboard["templating"]["list"]}
    if dashboard.get("editable", True):
        yield "it is editable: changes in the browser would be lost"
    if not any(variable["type"] == "datasource" for variable in variables.values()):
        yield "no variable for the data source"
    for name in ("job", "instance"):
        variable = variables.get(name, {})
        if not (variable.get("multi") and variable.get("allValue") == ".+" and variable.get("refresh") == 2):
            yield f"${name} must take several, '.+' for all, and follow the time range"
    ids = [panel["id"] for panel in panels(dashboard)]
    if len(ids) != len(set(ids)):
        yield "panel ids repeat"
    taken = set()
    for panel in panels(dashboard):
        place, title = panel["gridPos"], panel.get("title", f"panel {panel['id']}")
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        if taken & cells or any(x >= 24 for x, _ in cells):
            yield f"{title}: lies over another panel or beyond the edge"
        taken |= cells
        if panel["type"] not in ("row", "text"):
            yield from (f"{title}: {finding}" for finding in lint_panel(panel, variables))


def lint_panel(panel, variables):
    if not panel.get("title"):
        yield "no title"
    if len(panel.get("description", "")) < 40:
        yield "no description that says what to look for"
    if panel["type"] in MEASURING and not panel["fieldConfig"]["defaults"].get("unit"):
        yield "no unit"
    if not panel["fieldConfig"]["defaults"].get("thresholds"):
        yield "no thresholds"
    if panel["datasource"]["uid"] != "${datasource}":
        yield "its data source is fixed"
    if not panel.get("targets"):
        yield "no query"
    for target in panel.get("targets", []):
        expression = target["expr"]
        for name in re.findall(r"\$\{?(\w+)", expression):
            if name not in variables and name not in BUILT_IN:
                yield f"unknown variable ${name}"
        for metric, labels in re.findall(r"\b((?:mcp_messaging_|mcp_server_|process_|up\b)\w*)(\{[^}]*\}|)", expression):
            if 'job=~"$job"' not in labels or 'instance=~"$instance"' not in labels:
                yield f"{metric} is not narrowed to $job and $instance"
        if re.search(r"\[\d", expression):
            yield "a fixed interval; use $__rate_interval or $__range"
        if "_total{" in expression and not re.search(r"\b(rate|irate|increase)\(", expression):
            yield "a counter without rate"


class Live:
    """A Prometheus."""

    def __init__(self, url):
        self.url = url

    def query(self, expression):
        """The series, or why there are none."""
        url = f"{self.url}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return json.load(answer)["data"]["result"]
        except urllib.error.HTTPError as error:
            return json.load(error)["error"]


def filled(expression, variables):
    """With every variable as Grafana fills it in when all of it is picked."""

    def value(match):
        name = match.group(1)
        return BUILT_IN.get(name) or variables[name]["allValue"]

    return re.sub(r"\$\{?(\w+)\}?", value, expression)


def finite(series):
    return any(each["value"][1] not in ("NaN", "+Inf", "-Inf") for each in series)


def empty(dashboard, prometheus):
    """Queries that return no data: findings."""
    variables = {variable["name"]: variable for variable in dashboard["templating"]["list"]}
    asked = []
    for variable in variables.values():
        if variable["type"] == "query":
            selector = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"])
            asked.append((f"${variable['name']}", f"count by ({selector[2]}) ({selector[1]})"))
    for panel in panels(dashboard):
        asked += [(panel["title"], target["expr"]) for target in panel.get("targets", [])]
    for title, expression in asked:
        answer = prometheus.query(filled(expression, variables))
        if isinstance(answer, str):
            yield f"{title}: {answer}"
        elif not finite(answer):
            yield f"{title}: no data: {expression}"


def queries(dashboard):
    return sum(len(panel.get("targets", [])) for panel in panels(dashboard))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dashboards", nargs="+", type=pathlib.Path)
    parser.add_argument("--prometheus", help="base URL; without it only the linter's rules are checked")
    arguments = parser.parse_args()
    bad = 0
    for file in arguments.dashboards:
        dashboard = json.loads(file.read_text())
        findings = list(lint(dashboard))
        if arguments.prometheus:
            findings += empty(dashboard, Live(arguments.prometheus))
        print(f"{file.name}: {queries(dashboard)} queries, {len(findings)} findings")
        for finding in findings:
            print(f"  {finding}")
        bad += len(findings)
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())
