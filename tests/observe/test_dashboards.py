"""The dashboards are what their source says, tidy, and every panel shows data of real replicas."""

import json
import pathlib
import signal
import time

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

import check_dashboards
import generate
from installation import Installation, until
from traffic import conversation, trouble

FOLDER = pathlib.Path(generate.DASHBOARDS)
NAMES = sorted(generate.BOARDS)
pytestmark = pytest.mark.xdist_group("dashboards")  # they share an installation


def dashboard(name):
    return json.loads((FOLDER / f"{name}.json").read_text())


@pytest.fixture(scope="module")
def busy(tmp_path_factory):
    """Two replicas under load that have seen every kind of trouble."""
    folder = tmp_path_factory.mktemp("busy")
    with Installation(folder, MCP_MESSAGING__MESSAGING__MANUAL_LEASE_SECONDS="1") as installation:
        installation.repeat(conversation(installation))
        installation.repeat(trouble(installation))
        time.sleep(8)
        # Calls that fail by our fault.
        installation.redis.send(signal.SIGSTOP)
        time.sleep(5)
        installation.redis.send(signal.SIGCONT)
        # Somebody waits while the panels are looked at.
        installation.repeat(lambda _: installation.replicas[1].call("get_messages", client_id="patient", wait_seconds=10))
        until(lambda: installation.prometheus.query("sum(mcp_messaging_waiters) > 0"))
        # What one replica counts for all went with Redis, and comes back.
        until(lambda: installation.prometheus.query("mcp_messaging_sample_timestamp_seconds"))
        time.sleep(3)
        yield installation


def test_there_is_a_file_for_each_dashboard_and_no_other():
    assert sorted(file.stem for file in FOLDER.glob("*.json")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_the_file_is_what_its_source_says(name):
    assert (FOLDER / f"{name}.json").read_text() == generate.written(generate.BOARDS[name]), "run deploy/grafana/generate.py"


@pytest.mark.parametrize("name", NAMES)
def test_a_dashboard_has_no_lint(name):
    assert list(check_dashboards.lint(dashboard(name))) == []


def lost(written, read, place=""):
    """What the one has and the other does not."""
    if isinstance(written, dict) and isinstance(read, dict):
        for key, value in written.items():
            yield from lost(value, read.get(key, "nothing"), f"{place}/{key}")
    elif isinstance(written, list) and isinstance(read, list) and len(written) == len(read):
        for number, (one, other) in enumerate(zip(written, read, strict=True)):
            yield from lost(one, other, f"{place}/{number}")
    elif written != read:
        yield f"{place}: {written!r} was read as {read!r}"


@pytest.mark.parametrize("name", NAMES)
def test_grafana_s_own_schema_reads_all_of_a_dashboard(name):
    """Options that Grafana does not know, or of another type, would not come back."""
    register_default_plugins()
    read = json.loads(JSONEncoder().encode(Dashboard.from_json(dashboard(name))))
    assert list(lost(dashboard(name), read)) == []


@pytest.mark.parametrize("name", NAMES)
def test_every_panel_shows_data(busy, name):
    assert list(check_dashboards.empty(dashboard(name), check_dashboards.Live(busy.prometheus.url))) == []


def test_a_panel_without_data_is_found(busy):
    broken = dashboard("redis")
    broken["panels"][1]["targets"][0]["expr"] = "mcp_messaging_no_such_metric"
    findings = list(check_dashboards.empty(broken, check_dashboards.Live(busy.prometheus.url)))
    assert len(findings) == 1 and "no data" in findings[0]


def test_lint_is_found():
    broken = dashboard("redis")
    broken["editable"] = True
    panel = broken["panels"][1]
    panel["description"] = ""
    panel["datasource"] = {"type": "prometheus", "uid": "mine"}
    panel["targets"][0]["expr"] = "rate(mcp_messaging_waiters[5m])"
    del panel["fieldConfig"]["defaults"]["unit"]
    assert len(list(check_dashboards.lint(broken))) == 6
