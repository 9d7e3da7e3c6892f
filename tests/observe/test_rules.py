"""The alerts: valid, tested, and each explained in the runbook."""

import re
import shutil
import subprocess

import pytest
import yaml

from installation import ROOT, RULES, alerts, rules, until

SCENARIOS = ROOT / "tests/observe/rules_test.yml"
RUNBOOK = (ROOT / "docs/runbook.md").read_text()
METRICS = (ROOT / "docs/metrics.md").read_text()
NAMES = sorted(alerts())


def promtool(*arguments, **more):
    return subprocess.run([shutil.which("promtool"), *arguments], capture_output=True, text=True, check=False, **more)


def test_the_rules_have_no_lint():
    result = promtool("check", "rules", "--lint=all", "--lint-fatal", RULES)
    assert result.returncode == 0, result.stdout + result.stderr


def test_every_scenario_comes_out_as_written():
    result = promtool("test", "rules", SCENARIOS)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("name", NAMES)
def test_an_alert_fires_in_some_scenario_and_is_silent_in_another(name):
    firing, silent = 0, 0
    for scenario in yaml.safe_load(SCENARIOS.read_text())["tests"]:
        for question in scenario["promql_expr_test"]:
            if "ALERTS" in question["expr"]:
                if any(f'alertname="{name}"' in sample["labels"] for sample in question["exp_samples"]):
                    firing += 1
                else:
                    silent += 1
    assert firing and silent


@pytest.mark.parametrize("name", NAMES)
def test_an_alert_says_how_bad_it_is_and_what_to_do(name):
    alert = alerts()[name]
    assert alert["labels"] == {"severity": alert["labels"]["severity"]}
    assert alert["labels"]["severity"] in ("critical", "warning")
    assert set(alert["annotations"]) == {"summary", "description", "runbook_url"}
    assert alert["annotations"]["runbook_url"] == f"docs/runbook.md#{name.lower()}"
    section = re.search(rf"^### {name}\n(.+?)(?=^##|\Z)", RUNBOOK, re.M | re.S)
    assert section, "no section in docs/runbook.md"
    for part in ("**Means.**", "**Confirm.**", "**Do.**"):
        assert part in section[1], f"{part} is missing in its section"


def test_the_runbook_explains_no_alert_that_is_not_there():
    assert sorted(re.findall(r"^### (McpMessaging\w+)$", RUNBOOK, re.M)) == NAMES


def test_rules_and_dashboards_ask_only_for_metrics_that_are_documented():
    documented = set(re.findall(r"^\| `(\w+)`", METRICS, re.M))
    asked = {name for rule in rules() for name in re.findall(r"\bmcp_(?:messaging|server)_\w+", re.sub(r"job\w*:\S+?(?=[{\s]|$)", "", rule["expr"]))}
    for file in (ROOT / "deploy/grafana/dashboards").glob("*.json"):
        asked |= set(re.findall(r"\bmcp_(?:messaging|server)_\w+(?=\{|_count|_bucket|_sum)", file.read_text()))
    plain = {re.sub(r"_(bucket|count|sum)$", "", name) for name in asked}
    assert plain and plain <= documented, plain - documented


def test_what_a_server_exports_has_no_lint(install):
    """After a call of each kind, so that every series is there."""
    installation = install(replicas=1)
    replica = installation.replicas[0]
    replica.call("send_message", sender_id="a", recipient_id="b", message="m")
    replica.call("get_messages", client_id="b")
    until(lambda: "mcp_messaging_sample_timestamp_seconds" in replica.metrics())
    result = promtool("check", "metrics", input=replica.metrics())
    assert result.returncode == 0 and not result.stderr, result.stdout + result.stderr
