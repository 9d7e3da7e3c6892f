#!/usr/bin/env python3
"""Writes deploy/grafana/dashboards/*.json. Edit this file, not the JSON; `./test observe` fails when the two differ.

In an expression, $scope stands for the replicas that the reader picked. A description says what healthy looks like, and what to do.
"""

import json
import pathlib

DASHBOARDS = pathlib.Path(__file__).parent / "dashboards"
SCOPE = 'job=~"$job", instance=~"$instance"'
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
SENDS = 'gen_ai_tool_name=~"send_message.*"'
OUR_FAULT = 'error_type=~"unavailable|internal"'


def levels(*steps):
    """Thresholds: a base colour, then (value, colour)."""
    base, *rest = steps
    return {
        "mode": "absolute",
        "steps": [{"color": base, "value": None}] + [{"color": colour, "value": at} for at, colour in rest],
    }


def target(number, query, **more):
    expression, legend = query
    return {
        "datasource": SOURCE,
        "refId": chr(ord("A") + number),
        "expr": expression.replace("$scope", SCOPE),
        "legendFormat": legend,
        **more,
    }


def panel(kind, title, description, queries, unit, width, thresholds=None, options=None, custom=None, height=8, **defaults):
    query_options = {}
    if kind in ("stat", "table"):
        query_options = {"instant": True, "range": False}
    if kind == "heatmap":
        query_options = {"format": "heatmap"}
    if kind == "table":
        query_options["format"] = "table"
    return {
        "type": kind,
        "title": title,
        "description": description,
        "datasource": SOURCE,
        "gridPos": {"w": width, "h": height},
        "targets": [target(number, query, **query_options) for number, query in enumerate(queries)],
        "fieldConfig": {
            "defaults": {
                "unit": unit,
                "thresholds": thresholds or levels("green"),
                **({"custom": custom} if custom else {}),
                **defaults,
            },
            "overrides": [],
        },
        "options": options or {},
    }


def stat(title, description, query, unit, thresholds, width=4, **more):
    options = {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "colorMode": "background",
        "graphMode": "none",
        "textMode": "auto",
    }
    return panel("stat", title, description, [(query, "")], unit, width, thresholds, options, height=5, **more)


def graph(title, description, *queries, unit, width=8, stacked=False, limit=None, **more):
    custom = {"drawStyle": "line", "lineWidth": 1, "fillOpacity": 30 if stacked else 8, "showPoints": "never", "spanNulls": False}
    if stacked:
        custom["stacking"] = {"mode": "normal", "group": "A"}
    if limit is not None:
        custom["thresholdsStyle"] = {"mode": "dashed"}
    options = {
        "legend": {"displayMode": "table", "placement": "bottom", "showLegend": True, "calcs": ["lastNotNull", "max"]},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    thresholds = levels("green") if limit is None else levels("green", (limit, "red"))
    return panel("timeseries", title, description, queries, unit, width, thresholds, options, custom, min=0, **more)


def heatmap(title, description, query, width=12):
    options = {
        "calculate": False,
        "color": {"mode": "scheme", "scheme": "Oranges", "steps": 64, "exponent": 0.5},
        "yAxis": {"unit": "s"},
        "cellGap": 1,
        "legend": {"show": True},
    }
    return panel("heatmap", title, description, [(query, "{{le}}")], "s", width, options=options)


def text(title, content, height):
    return {
        "type": "text",
        "title": title,
        "gridPos": {"w": 24, "h": height},
        "options": {"mode": "markdown", "content": content},
    }


def row(title, *panels):
    return title, panels


def variable(name, label, within=""):
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": SOURCE,
        "query": {
            "query": f"label_values(mcp_messaging_build_info{within}, {name})",
            "refId": name,
        },
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".+",
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
    }


def dashboard(name, description, *rows):
    """Lays the panels out from left to right, row by row."""
    panels, y = [], 0
    for title, members in rows:
        panels.append({"type": "row", "title": title, "collapsed": False, "panels": [], "gridPos": {"x": 0, "y": y, "w": 24, "h": 1}})
        x, y, tallest = 0, y + 1, 0
        for member in members:
            place = member["gridPos"]
            if x + place["w"] > 24:
                x, y, tallest = 0, y + tallest, 0
            panels.append(member | {"gridPos": {"x": x, "y": y, **place}})
            x, tallest = x + place["w"], max(tallest, place["h"])
        y += tallest
    return {
        "uid": f"mcp-messaging-{name.lower()}",
        "title": f"mcp-messaging / {name}",
        "description": description,
        "tags": ["mcp-messaging"],
        "editable": False,
        "schemaVersion": 39,
        "version": 1,
        "graphTooltip": 1,
        "refresh": "10s",
        "time": {"from": "now-30m", "to": "now"},
        "timezone": "",
        "links": [
            {
                "type": "dashboards",
                "title": "mcp-messaging",
                "tags": ["mcp-messaging"],
                "asDropdown": False,
                "includeVars": True,
                "keepTime": True,
                "targetBlank": False,
            }
        ],
        "annotations": {"list": []},
        "templating": {
            "list": [
                {
                    "name": "datasource",
                    "label": "Data source",
                    "type": "datasource",
                    "query": "prometheus",
                    "refresh": 1,
                    "current": {},
                    "includeAll": False,
                    "multi": False,
                },
                variable("job", "Job"),
                variable("instance", "Instance", '{job=~"$job"}'),
            ]
        },
        "panels": [{"id": number, **each} for number, each in enumerate(panels, 1)],
    }


# --- expressions that more than one panel asks ---


def quantile(share, metric, by="", labels=""):
    by = f"le, {by}" if by else "le"
    return f"histogram_quantile({share}, sum by ({by}) (rate({metric}_bucket{{$scope{labels}}}[$__rate_interval])))"


def quantiles(metric, *shares, labels=""):
    return [(quantile(share, metric, labels=labels), f"p{round(share * 100)}") for share in shares]


def events(event, by=""):
    by = f" by ({by})" if by else ""
    return f'sum{by} (rate(mcp_messaging_messages_total{{$scope, event="{event}"}}[$__rate_interval]))'


def by_replica(expression):
    """With a 0 for each replica that has nothing to say, so that a flat line is told from a missing one."""
    return f"{expression} or sum by (instance) (up{{$scope}}) * 0"


DELIVERY = "mcp_messaging_delivery_latency_seconds"
WAKEUP = "mcp_messaging_wakeup_latency_seconds"
REDIS = "mcp_messaging_redis_command_duration_seconds"
CALLS = "mcp_server_operation_duration_seconds"
FIRST_DELIVERIES = f"({events('delivered')} - {events('redelivered')})"
FAILED_CALLS = by_replica(f"sum by (instance) (rate({CALLS}_count{{$scope, {OUR_FAULT}}}[$__rate_interval]))")
REDIS_P99_BY_REPLICA = quantile(0.99, REDIS, "instance")
WAKEUP_P99_BY_REPLICA = quantile(0.99, WAKEUP, "instance")
IN_TIME = (
    'sum(increase(mcp_messaging_send_duration_seconds_bucket{$scope, outcome!="failed", le="0.5"}[$__range]))'
    " / sum(increase(mcp_messaging_send_duration_seconds_count{$scope}[$__range]))"
)


def whole(metric, by="job", labels=""):
    """Of the store as a whole: one replica exports it, whichever of those that the reader picked or not."""
    return f"max by ({by}) (mcp_messaging_{metric}{{$scope{labels}}})"


def limit(name):
    return f'mcp_messaging_limit{{$scope, limit="{name}"}}'


FULLEST = [
    (f"{whole('fullest_inbox_messages')} / min by (job) ({limit('inbox_messages')})", "messages of {{job}}"),
    (f"{whole('fullest_inbox_bytes')} / min by (job) ({limit('inbox_bytes')})", "bytes of {{job}}"),
]
REFUSALS = ('sum by (reason) (rate(mcp_messaging_refusals_total{$scope}[$__rate_interval])) > 0', "{{reason}}")
FOUND_EXPIRED = "sum(rate(mcp_messaging_messages_expired_total{$scope}[$__rate_interval]))"

GUIDE = """
| What you see | Who is at fault | Look at |
|-|-|-|
| *Redis calls by replica*: **every** line rises, calls fail everywhere | Redis, or the way to it | **Redis**: which function; *Connected*, *Reconnects* |
| *Redis calls by replica*: **one** line rises | that replica, or its machine | **Replicas**: CPU, memory |
| *Ready* falls and calls fail as `unavailable` | Redis, or the way to it | **Replicas**: *Not ready, by reason*; **Redis**: *Connected*, *Errors by kind* |
| *Missed wake-ups* rises, or one line of *Wake-up by replica* stands out | that replica does not wake its waiters | **Redis**: *Missed wake-ups*, *Deaf subscriptions* |
| *Messages queued* and *Oldest message* rise, waiters are few | clients that never read | **Delivery**: *Unread*, *Fullest inbox* |
| *Trouble*: `refused` rises | an inbox is full, or a client sends what is not allowed | **Delivery**: *Refusals by reason* |
| *Trouble*: `failed` rises | Redis, or the way to it | **Redis**: *Errors by kind* |
| *Trouble*: `expired` rises | mail lies longer than it lives | **Delivery**: *Age at delivery* |
| *Trouble*: `redelivered` rises | clients break off, or take mail without confirming it | **Delivery**: *Handed out and not acknowledged* |
| two versions for longer than a rollout takes, or *Ready* below 100 % | the rollout is stuck | **Replicas**: *Not ready, by reason*, *Replicas by version*, *Uptime* |

Each alert has a section in `docs/runbook.md`: what it means, how to confirm it, what to do.
""".strip()

OVERVIEW = dashboard(
    "Overview",
    "Is it healthy, are messages flowing, who is waiting, how fast is mail delivered, and which part is at fault.",
    row(
        "Is it healthy?",
        stat(
            "Alerts firing",
            "Rules of deploy/prometheus/rules.yml that fire now. Healthy: 0. Otherwise open the alerts of Prometheus; each names its "
            "section of docs/runbook.md. It is also 0 when Prometheus does not load the rules.",
            'count(ALERTS{alertname=~"McpMessaging.+", alertstate="firing"}) or vector(0)',
            "short",
            levels("green", (1, "red")),
        ),
        stat(
            "Replicas up",
            "Replicas that answered the last scrape. Healthy: as many as you run, and at least two. Fewer: see Replicas, and ask the "
            "platform why it does not start them.",
            "sum(up{$scope})",
            "short",
            levels("red", (1, "orange"), (2, "green")),
        ),
        stat(
            "Ready",
            "Share of replicas that are ready. Healthy: 100 %. 0 % is Redis or the way to it; something between is one replica, or a rollout "
            "that does not get on. Replicas, Not ready by reason, says which and why.",
            'avg(mcp_messaging_ready{$scope, reason="ok"})',
            "percentunit",
            levels("red", (0.01, "orange"), (1, "green")),
        ),
        stat(
            "Sends taken in time",
            "Share of messages given to send that the store took or refused by a rule within 0.5 s, over the shown range: the indicator of the "
            "objective (99.9 % in 30 days). What the store failed counts against it. Below: see Redis for which function and which replica.",
            IN_TIME,
            "percentunit",
            levels("red", (0.99, "orange"), (0.999, "green")),
            decimals=3,
        ),
        stat(
            "Missed wake-ups",
            "Waiters that only the safety poll found beside their mail, over the shown range. Must be 0: anything else is a fault of "
            "the server or of pub/sub in Redis. They got their mail, up to 20 s late.",
            "sum(increase(mcp_messaging_missed_wakeups_total{$scope}[$__range]))",
            "short",
            levels("green", (0.5, "red")),
            decimals=0,
        ),
        stat(
            "Calls waiting",
            "Calls that wait for mail or for an answer, on all replicas. A replica refuses further ones at limits.replica_waiters "
            "(50,000). Fewer than usual: agents have gone, or cannot connect.",
            "sum(mcp_messaging_waiters{$scope})",
            "short",
            levels("green"),
        ),
    ),
    row(
        "What lies in the inboxes?",
        stat(
            "Messages queued",
            "Live messages in all inboxes. What is healthy is yours to know; rising without end, recipients do not read (Delivery, Unread).",
            f"sum({whole('queued_messages')})",
            "short",
            levels("green"),
        ),
        stat(
            "Oldest message",
            "Age of the oldest message in any inbox. Near the life of a message (300 s), it will expire: somebody does not read.",
            f"max({whole('oldest_message_age_seconds')})",
            "s",
            levels("green"),
        ),
        stat(
            "Fullest inbox",
            "How full the fullest inbox is, by messages or by bytes. At 100 % sends to it are refused. list_clients shows whose it is.",
            f"max({FULLEST[0][0]} or {FULLEST[1][0]})",
            "percentunit",
            levels("green", (0.8, "red")),
        ),
        stat(
            "Clients waiting",
            "Clients that wait for mail now, on any replica. Fewer than usual: agents have gone, or cannot connect.",
            "sum(" + whole("clients", labels=', state="waiting"') + ")",
            "short",
            levels("green"),
        ),
        stat(
            "Refused",
            "Messages, calls and requests refused in the shown range, by any rule. Delivery, Refusals by reason, says which.",
            "sum(increase(mcp_messaging_refusals_total{$scope}[$__range]))",
            "short",
            levels("green"),
            decimals=0,
        ),
        stat(
            "Counted",
            "How long ago one of the replicas counted what lies in the inboxes. Healthy: under a minute or so. Old: the numbers beside it are old too.",
            f"time() - max({whole('sample_timestamp_seconds')})",
            "s",
            levels("green", (300, "red")),
        ),
    ),
    row(
        "Are messages flowing?",
        graph(
            "Messages",
            "Healthy: the three lines lie upon each other. Accepted above delivered: recipients do not read (Delivery, Unread). "
            "Delivered above acknowledged: clients break off or do not confirm. All at 0 with agents at work: see Calls that failed.",
            ('sum by (event) (rate(mcp_messaging_messages_total{$scope, event=~"accepted|delivered|acknowledged"}[$__rate_interval]))', "{{event}}"),
            unit="mps",
            width=12,
        ),
        graph(
            "Trouble",
            "Messages handed out again, found to have expired unread, refused by a rule (a full inbox, say), and failed by the store. Healthy: "
            "near 0. failed is ours, the rest is mostly what clients do. The Delivery dashboard has each of them.",
            (events("failed"), "failed"),
            (events("refused"), "refused"),
            (events("redelivered"), "redelivered"),
            (FOUND_EXPIRED, "expired"),
            unit="mps",
            width=12,
        ),
        graph(
            "Calls by tool",
            "MCP requests that ended, by tool (others by method). A tool that falls to 0 while others go on points to clients, not to "
            "the server.",
            (f'sum by (gen_ai_tool_name) (rate({CALLS}_count{{$scope, gen_ai_tool_name!=""}}[$__rate_interval]))', "{{gen_ai_tool_name}}"),
            (f'sum by (mcp_method_name) (rate({CALLS}_count{{$scope, gen_ai_tool_name=""}}[$__rate_interval]))', "{{mcp_method_name}}"),
            unit="reqps",
            width=12,
            stacked=True,
        ),
        graph(
            "Calls that failed",
            "unavailable and internal are ours: Redis does not answer, or a fault (the log has it at level error). tool_error was "
            "refused with a reason. cancelled: the client hung up. The rest are malformed requests.",
            (f'sum by (error_type) (rate({CALLS}_count{{$scope, error_type!=""}}[$__rate_interval]))', "{{error_type}}"),
            unit="reqps",
            noValue="none so far",
            width=12,
        ),
    ),
    row(
        "Who is waiting, and when does mail arrive?",
        graph(
            "Waiting calls by replica",
            "Healthy: spread like your load balancer spreads. One replica with far fewer: it is new, or clients cannot reach it. All fall "
            "at once: a rollout, or a proxy that cuts long calls.",
            ("sum by (instance) (mcp_messaging_waiters{$scope})", "{{instance}}"),
            unit="short",
            stacked=True,
        ),
        graph(
            "Wake-up latency",
            "From acceptance of a message to the waiter that it woke. Healthy: milliseconds. Over a second: Redis is slow, or a replica "
            "is out of CPU; compare the replicas below.",
            *quantiles(WAKEUP, 0.5, 0.99),
            unit="s",
            limit=1,
        ),
        graph(
            "Age at delivery",
            "From acceptance to delivery. It includes the time in which nobody asked for the mail, so it tells how often agents read, "
            "not how fast the server is: for that see Wake-up latency.",
            *quantiles(DELIVERY, 0.5, 0.95, 0.99),
            unit="s",
        ),
    ),
    row(
        "Which part is at fault?",
        graph(
            "Redis calls by replica (p99)",
            "All lines high: Redis or the network. One line high: that replica. Healthy: below 20 ms.",
            (REDIS_P99_BY_REPLICA, "{{instance}}"),
            unit="s",
            limit=0.1,
        ),
        graph(
            "Wake-up by replica (p99)",
            "The replica whose line stands out does not wake its waiters in time: see its deaf subscriptions and missed wake-ups on "
            "Redis, and its CPU on Replicas.",
            (WAKEUP_P99_BY_REPLICA, "{{instance}}"),
            unit="s",
            limit=1,
        ),
        graph(
            "Failed calls by replica",
            "Calls that ended as unavailable or internal. On every replica: Redis. On one: take it out of the load balancer, keep its log.",
            (FAILED_CALLS, "{{instance}}"),
            unit="reqps",
        ),
        text("From what you see to who is at fault", GUIDE, 11),
    ),
)

DELIVERY_BOARD = dashboard(
    "Delivery",
    "What becomes of messages: accepted, delivered, redelivered, expired, refused, how many lie there, and how old they get.",
    row(
        "In the inboxes",
        graph(
            "Messages queued",
            "Live messages in all inboxes, counted now and then by one replica. Rising without end: recipients do not read.",
            (whole("queued_messages"), "{{job}}"),
            unit="short",
            width=6,
        ),
        graph(
            "Bytes queued",
            "What the inboxes take in the store, what expired and was not dropped yet included. Keep maxmemory of Redis well above it.",
            (whole("queued_bytes"), "{{job}}"),
            unit="bytes",
            width=6,
        ),
        graph(
            "Oldest message",
            "Age of the oldest message in any inbox. When it nears the life of a message (300 s), messages expire.",
            (whole("oldest_message_age_seconds"), "{{job}}"),
            unit="s",
            width=6,
        ),
        graph(
            "Fullest inbox, share of its limit",
            "At 100 % sends to it are refused (inbox_full). list_clients shows the queue depth of each client.",
            *FULLEST,
            unit="percentunit",
            width=6,
            limit=0.8,
        ),
        graph(
            "Inboxes with messages",
            "In how many inboxes the queued messages lie. Few inboxes with many messages: single recipients do not read. Many: most do not.",
            (whole("inboxes"), "{{job}}"),
            unit="short",
            width=12,
        ),
        graph(
            "Clients by state",
            "Waiting for mail now, active (seen within 5 minutes), or away. All waiting ones gone at once: a proxy cuts long calls, or a rollout.",
            (whole("clients", "job, state"), "{{state}}"),
            unit="short",
            width=12,
            stacked=True,
        ),
    ),
    row(
        "Accepted and delivered",
        graph(
            "Accepted",
            "Messages that a send was told are queued or handed over, by the replica that took them.",
            (events("accepted", "instance"), "{{instance}}"),
            unit="mps",
            stacked=True,
        ),
        graph(
            "Delivered for the first time",
            "Messages handed out, without those handed out again. In the long run it follows Accepted.",
            (FIRST_DELIVERIES, "delivered"),
            unit="mps",
        ),
        graph(
            "Acknowledged",
            "Messages whose response was written to the connection, or whose receipt came back. Only these have left their inbox.",
            (events("acknowledged", "instance"), "{{instance}}"),
            unit="mps",
            stacked=True,
        ),
        graph(
            "Unread: accepted and not delivered",
            "Accepted minus first deliveries, per second. Healthy: around 0. Above 0 for long: a client never reads, its inbox fills and then "
            "its senders are refused. list_clients shows the queue depth of each client.",
            (f"{events('accepted')} - {FIRST_DELIVERIES}", "unread"),
            unit="mps",
            width=12,
        ),
        graph(
            "Handed out and not acknowledged",
            "Delivered minus acknowledged, per second. Healthy: around 0. Above 0 for long: clients or proxies break connections off "
            "while mail is written, or fetch with ack=manual and never pass the receipt.",
            (f"{events('delivered')} - {events('acknowledged')}", "not acknowledged"),
            unit="mps",
            width=12,
        ),
    ),
    row(
        "Redelivered, expired, refused",
        graph(
            "Redelivered, share of deliveries",
            "Healthy: below 1 %. More: see Handed out and not acknowledged; a load balancer whose timeout is shorter than a wait does it too.",
            (f"{events('redelivered')} / {events('delivered')}", "redelivered"),
            unit="percentunit",
            limit=0.1,
        ),
        graph(
            "Expired",
            "Messages whose life ended unread: found (soon after), and told (at the next contact of their sender). More: recipients are gone, or "
            "read less often than messages live (MESSAGE_TTL_SECONDS). Found far above told: senders do not come back to hear of it.",
            (FOUND_EXPIRED, "found"),
            (events("expired"), "told"),
            unit="mps",
        ),
        graph(
            "Refused, share of sends",
            "Healthy: near 0. A full inbox or a broken rule, and the sender was told which: see Refusals by reason.",
            (f"{events('refused')} / ({events('accepted')} + {events('refused')})", "refused"),
            unit="percentunit",
            limit=0.05,
        ),
        graph(
            "Refusals by reason",
            "Messages, calls and requests that were refused. inbox_full: its owner does not read. replica_busy: add replicas. host and origin: "
            "http.allowed_hosts and allowed_origins. The rest: a client does what is not allowed, and was told what.",
            REFUSALS,
            unit="short",
            noValue="none so far",
            width=12,
        ),
        graph(
            "Handed out and given back",
            "Batches that went back at once. unwritten: clients or proxies cut connections while mail is written. given_up: calls that end "
            "early. store_failed: Redis did not answer. Their messages come again.",
            ("sum by (why) (rate(mcp_messaging_leases_returned_total{$scope}[$__rate_interval]))", "{{why}}"),
            unit="short",
            width=12,
        ),
        graph(
            "Sends by outcome",
            "Calls of send_message and send_message_and_wait. ok: accepted. tool_error: every recipient was refused. unavailable: the store "
            "failed. cancelled: the client hung up, what it sent stays sent.",
            (f'sum by (error_type) (rate({CALLS}_count{{$scope, {SENDS}, error_type!=""}}[$__rate_interval]))', "{{error_type}}"),
            (f'sum (rate({CALLS}_count{{$scope, {SENDS}, error_type=""}}[$__rate_interval]))', "ok"),
            unit="reqps",
            width=12,
            stacked=True,
        ),
        graph(
            "Calls given up by their client",
            "Calls whose connection went away, or that were cancelled, by tool. Many get_messages or send_message_and_wait: a client or proxy "
            "gives up before the wait ends. Nothing is lost, mail comes again.",
            (f'sum by (gen_ai_tool_name) (rate({CALLS}_count{{$scope, error_type="cancelled"}}[$__rate_interval]))', "{{gen_ai_tool_name}}"),
            unit="reqps",
            noValue="none so far",
            width=12,
        ),
    ),
    row(
        "Age",
        graph(
            "Age at delivery",
            "From acceptance to delivery, with the time in which nobody asked. When p99 nears the life of a message (300 s), messages expire.",
            *quantiles(DELIVERY, 0.5, 0.95, 0.99),
            unit="s",
            width=12,
        ),
        heatmap(
            "Age at delivery, all messages",
            "Two bands are normal: milliseconds for recipients that wait, minutes for those that look now and then. A band that moves up: "
            "recipients read less often.",
            f"sum by (le) (increase({DELIVERY}_bucket{{$scope}}[$__rate_interval]))",
        ),
        graph(
            "Wake-up latency",
            "For recipients that wait: from acceptance to the waiter. This one is the server's: over a second see Redis and Replicas.",
            *quantiles(WAKEUP, 0.5, 0.95, 0.99),
            unit="s",
            width=12,
            limit=1,
        ),
        graph(
            "How long calls wait",
            "Median and 99th percentile of get_messages and send_message_and_wait. Flat at the same round number: a proxy or client "
            "ends the calls (60 s is the usual one).",
            (quantile(0.5, CALLS, "gen_ai_tool_name", ', gen_ai_tool_name=~"get_messages|send_message_and_wait"'), "{{gen_ai_tool_name}} p50"),
            (quantile(0.99, CALLS, "gen_ai_tool_name", ', gen_ai_tool_name=~"get_messages|send_message_and_wait"'), "{{gen_ai_tool_name}} p99"),
            unit="s",
            width=12,
        ),
    ),
)

REDIS_BOARD = dashboard(
    "Redis",
    "Redis as the replicas feel it: is it there, how fast is it, does it wake waiters.",
    row(
        "Is it there?",
        graph(
            "Connected, by replica",
            "1 while the replica's subscriber is connected. All at 0: Redis or the network. One at 0: that replica's way to Redis. A server with "
            "the memory backend has no line.",
            ("max by (instance) (mcp_messaging_redis_connected{$scope})", "{{instance}}"),
            unit="short",
            max=1,
        ),
        graph(
            "Connections made, by replica",
            "Times that the subscriber connected, the first one included. Healthy: 0 after the start. Again and again: Redis restarts, fails "
            "over, or something cuts idle connections.",
            ("sum by (instance) (increase(mcp_messaging_redis_reconnects_total{$scope}[$__rate_interval]))", "{{instance}}"),
            unit="short",
        ),
        graph(
            "Failed calls by replica",
            "Calls that ended as unavailable or internal. With Connected at 1 and calls that fail: Redis answers with errors (full, read-only); the "
            "log says which at level error, and /readyz of a replica says why it is not ready.",
            (FAILED_CALLS, "{{instance}}"),
            unit="reqps",
        ),
    ),
    row(
        "What does it answer?",
        graph(
            "Errors by kind",
            "Attempts that failed, those repeated with success included. timeout, connection: Redis is away or slow. not_ready: it loads or fails over. "
            "memory: maxmemory is reached. read_only: a failover left us at a replica, or the disk is full. denied: a right is missing.",
            ("sum by (kind) (rate(mcp_messaging_redis_errors_total{$scope}[$__rate_interval]))", "{{kind}}"),
            unit="ops",
        ),
        graph(
            "Repeated attempts",
            "Healthy: 0. Repetitions without failed calls: short trouble that nobody felt. The log has what lasts.",
            ("sum by (instance) (rate(mcp_messaging_redis_retries_total{$scope}[$__rate_interval]))", "{{instance}}"),
            unit="ops",
        ),
        graph(
            "Revision of the functions",
            "Of each replica, and of Redis as it last saw it. Redis below a replica: that one may not load its own; run mcp-messaging migrate. Above: "
            "a newer version runs beside it, which is all right.",
            ("max by (instance, side) (mcp_messaging_function_revision{$scope})", "{{instance}} {{side}}"),
            unit="short",
        ),
    ),
    row(
        "How fast is it?",
        graph(
            "Function latency, median",
            "What a call costs on a good day: network and Redis together. Healthy: about a millisecond in one zone. All functions up: the network, or "
            "Redis is out of CPU.",
            (quantile(0.5, REDIS, "function"), "{{function}}"),
            unit="s",
            width=12,
        ),
        graph(
            "Function latency, 99th percentile",
            "Repetitions included. Steps near 2 s and above are timeouts (redis.command_timeout_seconds) and their repetition. Only one function up: "
            "large messages or deep inboxes. SLOWLOG of Redis shows whether it is Redis itself.",
            (quantile(0.99, REDIS, "function"), "{{function}}"),
            unit="s",
            width=12,
            limit=0.1,
        ),
        graph(
            "By replica, 99th percentile",
            "All lines high: Redis or the network. One line high: that replica, or its machine.",
            (REDIS_P99_BY_REPLICA, "{{instance}}"),
            unit="s",
            limit=0.1,
        ),
        graph(
            "Calls by function",
            "Calls of Redis Functions. mb1_send, mb1_fetch and mb1_ack go together; many more fetches than sends are polling clients "
            "(get_messages without wait_seconds).",
            (f"sum by (function) (rate({REDIS}_count{{$scope}}[$__rate_interval]))", "{{function}}"),
            unit="ops",
            stacked=True,
        ),
        graph(
            "Slower than 0.1 s, share",
            "Share of calls over 0.1 s, by function. Healthy: 0.",
            (
                f'1 - sum by (function) (rate({REDIS}_bucket{{$scope, le="0.1"}}[$__rate_interval]))'
                f" / sum by (function) (rate({REDIS}_count{{$scope}}[$__rate_interval]))",
                "{{function}}",
            ),
            unit="percentunit",
            limit=0.01,
        ),
        graph(
            "Calls under way",
            "Calls that wait for Redis at once, on average. Climbing while Calls by function stays flat: Redis is the bottleneck.",
            (f"sum by (instance) (rate({REDIS}_sum{{$scope}}[$__rate_interval]))", "{{instance}}"),
            unit="short",
            width=12,
        ),
        heatmap(
            "All calls",
            "The whole distribution. A second band higher up: one slow node of a cluster, a backup that forks, or a neighbour that runs slow commands.",
            f"sum by (le) (increase({REDIS}_bucket{{$scope}}[$__rate_interval]))",
        ),
    ),
    row(
        "Does it wake waiters?",
        graph(
            "Missed wake-ups, by replica",
            "Waiters that only the safety poll found beside their mail. Must stay 0. On one replica: restart it and keep its log. On all: pub/sub in "
            "Redis does not work (a proxy in between, or ACL rules without channels).",
            ("sum by (instance) (increase(mcp_messaging_missed_wakeups_total{$scope}[$__rate_interval]))", "{{instance}}"),
            unit="short",
            width=6,
            limit=0.5,
        ),
        graph(
            "Deaf subscriptions, by replica",
            "Subscriptions on a healthy connection that heard nothing, found and renewed. A single one is healed. Again and again: something between "
            "replica and Redis swallows pub/sub traffic.",
            ("sum by (instance) (increase(mcp_messaging_deaf_subscriptions_total{$scope}[$__rate_interval]))", "{{instance}}"),
            unit="short",
            width=6,
            limit=0.5,
        ),
        graph(
            "Wake-up by replica (p99)",
            "From acceptance to the waiter that it woke. One line stands out: that replica. All: Redis.",
            (WAKEUP_P99_BY_REPLICA, "{{instance}}"),
            unit="s",
            width=6,
            limit=1,
        ),
        graph(
            "Wake channels heard, by replica",
            "Channels (of 256) in which somebody waits on the replica, and for a minute after. 0 with waiting calls on that replica: it is deaf.",
            ("sum by (instance) (mcp_messaging_subscriptions{$scope})", "{{instance}}"),
            unit="short",
            width=6,
        ),
    ),
)

REPLICAS_BOARD = dashboard(
    "Replicas",
    "One replica against the others: version, restarts, CPU, memory, waiters, calls.",
    row(
        "Rollout",
        graph(
            "Replicas by version",
            "Two versions during a rollout, then one. Two for longer: the rollout is stuck, the new version is probably not ready; its "
            "/readyz says why.",
            ("count by (version, revision) (mcp_messaging_build_info{$scope})", "{{version}} {{revision}}"),
            unit="short",
            stacked=True,
        ),
        graph(
            "Not ready, by reason",
            "How many replicas are not ready, and why, in the words of /readyz. New ones with a reason while old ones serve: the rollout is stuck. All "
            "with the same: Redis.",
            ('sum by (reason) (mcp_messaging_ready{$scope, reason!="ok"})', "{{reason}}"),
            unit="short",
            stacked=True,
        ),
        graph(
            "Ready, by replica",
            "1 while the replica is ready for requests. One at 0: the load balancer sends it nothing; its /readyz says why.",
            ('max by (instance) (mcp_messaging_ready{$scope, reason="ok"})', "{{instance}}"),
            unit="short",
            max=1,
        ),
        graph(
            "Uptime",
            "A line that falls to 0 is a restart. Again and again on one replica: its exit code and last log lines say why (out of memory: see Memory).",
            ("time() - max by (instance) (process_start_time_seconds{$scope})", "{{instance}}"),
            unit="s",
        ),
        graph(
            "Up",
            "1 while the replica answers scrapes. At 0 while the platform thinks that it runs: it hangs, or the network is cut.",
            ("max by (instance) (up{$scope})", "{{instance}}"),
            unit="short",
            max=1,
        ),
    ),
    row(
        "Load",
        graph(
            "Waiting calls",
            "A replica refuses further ones at limits.replica_waiters. Very uneven: the load balancer pins clients.",
            ("sum by (instance) (mcp_messaging_waiters{$scope})", "{{instance}}"),
            unit="short",
            width=6,
        ),
        graph(
            "Listeners",
            "Inboxes watched by clients that listen (subscriptions/listen). They wait without asking for mail, and hold a connection each. All fall at once: a "
            "rollout, or a proxy that cuts long streams; clients come back by themselves.",
            ("sum by (instance) (mcp_messaging_listeners{$scope})", "{{instance}}"),
            unit="short",
            width=6,
        ),
        graph(
            "Calls",
            "MCP requests that ended. 0 on one replica that is up: the load balancer does not know it, or it is not ready.",
            (f"sum by (instance) (rate({CALLS}_count{{$scope}}[$__rate_interval]))", "{{instance}}"),
            unit="reqps",
            width=6,
        ),
        graph(
            "Failed calls",
            "Calls that ended as unavailable or internal. On all: Redis. On one: that replica.",
            (FAILED_CALLS, "{{instance}}"),
            unit="reqps",
            width=6,
        ),
        graph(
            "send_message, 99th percentile",
            "It never waits for anybody, so it shows the pace of the server and of Redis. One line stands out: that replica is short of CPU.",
            (quantile(0.99, CALLS, "instance", ', gen_ai_tool_name="send_message"'), "{{instance}}"),
            unit="s",
            limit=0.5,
        ),
        graph(
            "Wake-up, 99th percentile",
            "From acceptance to the waiter on this replica. One line stands out: it does not wake its waiters in time.",
            (WAKEUP_P99_BY_REPLICA, "{{instance}}"),
            unit="s",
            limit=1,
        ),
        graph(
            "Redis calls, 99th percentile",
            "The same Redis for all: one line alone is that replica or its machine.",
            (REDIS_P99_BY_REPLICA, "{{instance}}"),
            unit="s",
            limit=0.1,
        ),
    ),
    row(
        "Resources",
        graph(
            "CPU",
            "Cores in use; the counter has whole seconds, so short ranges look like steps. At the limit of the container: latencies rise; add replicas.",
            ("sum by (instance) (rate(process_cpu_seconds_total{$scope}[$__rate_interval]))", "{{instance}}"),
            unit="short",
            width=6,
        ),
        graph(
            "Memory",
            "Resident memory. It grows with waiting calls (about 16 KB each). With the memory backend it holds the mail too.",
            ("max by (instance) (process_resident_memory_bytes{$scope})", "{{instance}}"),
            unit="bytes",
            width=6,
        ),
        graph(
            "Open files, share of the limit",
            "A connection each. At 100 % no client gets in: raise the limit (ulimit -n) or add replicas.",
            ("max by (instance) (process_open_fds{$scope} / process_max_fds{$scope})", "{{instance}}"),
            unit="percentunit",
            width=6,
            limit=0.8,
        ),
        graph(
            "Connections, share of the limit",
            "Open connections against http.max_connections. At 100 % nobody gets in: add replicas. Far more connections than calls: look at the "
            "keep-alive of the load balancer.",
            (f"max by (instance) (mcp_messaging_connections{{$scope}} / on (job, instance) {limit('connections')})", "{{instance}}"),
            unit="percentunit",
            width=6,
            limit=0.8,
        ),
        graph(
            "Waiting calls, share of the limit",
            "Waiting calls against limits.replica_waiters. At 100 % further ones are refused with replica_busy.",
            (f"max by (instance) (mcp_messaging_waiters{{$scope}} / on (job, instance) {limit('replica_waiters')})", "{{instance}}"),
            unit="percentunit",
            width=6,
            limit=0.8,
        ),
        graph(
            "Spans lost",
            "Spans that did not get to the collector: it is away, or takes them too slowly (OTEL_BSP_MAX_QUEUE_SIZE). Mail is not concerned.",
            ("sum by (instance) (rate(mcp_messaging_spans_dropped_total{$scope}[$__rate_interval]))", "{{instance}}"),
            unit="ops",
            width=6,
        ),
        graph(
            "Threads",
            "Constant after the start: one per worker and a few more.",
            ("max by (instance) (process_threads{$scope})", "{{instance}}"),
            unit="short",
            width=6,
        ),
    ),
)


def written(board):
    return json.dumps(board, indent=2, ensure_ascii=False) + "\n"


BOARDS = {"overview": OVERVIEW, "delivery": DELIVERY_BOARD, "redis": REDIS_BOARD, "replicas": REPLICAS_BOARD}

if __name__ == "__main__":
    for name, board in BOARDS.items():
        (DASHBOARDS / f"{name}.json").write_text(written(board))
