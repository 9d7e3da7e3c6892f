"""The sizing of docs/operations.md is arithmetic, and this does it again from what docs/performance.md says was measured."""

import re

import pytest

import chart

DOCS = chart.ROOT / "docs"
AGENTS = (10, 1_000, 100_000)


def rows(document):
    """Cells of all tables, by the first one."""
    lines = [line.strip().strip("|").split(" | ") for line in (DOCS / document).read_text().splitlines() if line.startswith("| ")]
    return {cells[0].strip(): [cell.strip(" *|") for cell in cells[1:]] for cells in lines}


UNITS = {"us": 1e-6, "KB": 1e3, "MB": 1e6, "GB": 1e9, "B": 1, None: 1}


def rounded(text):
    """The first number in a text, in bytes, seconds or as it is, and how far off its last digit lets it be."""
    found = re.search(r"([\d,]+)(\.\d+)?[\s*]*(us|KB|MB|GB|B)?", text)
    whole, fraction, unit = found[1].replace(",", ""), found[2] or "", UNITS[found[3]]
    return float(whole + fraction) * unit, 0.501 * 10 ** -max(len(fraction) - 1, 0) * unit


def number(text):
    return rounded(text)[0]


def row(table, beginning):
    (found,) = [(name, cells) for name, cells in table.items() if name.startswith(beginning)]
    return found


@pytest.fixture(scope="module")
def measured():
    table = rows("performance.md")

    def both(name, separator):
        return [number(part) for part in row(table, name)[1][0].split(separator)]

    server, redis = (number(cell) for cell in table["send + receive *"][:2])
    few, many = both("its CPU per second", "/")
    first, each = both("a sender's ledger", ",")
    return {
        "server": server, "redis": redis, "waiting": few, "waiting of many": many,
        "memory": number(row(table, "idle waiter")[1][0]), "message": number(row(table, "each further message")[1][0]),
        "inbox": number(row(table, "the inbox after all was received")[1][0]), "ledger": first + 999 * each,
    }


def test_the_sizing_follows_from_what_was_measured(measured):
    table = rows("operations.md")
    seconds = [agents / 60 for agents in AGENTS]
    waiting = [measured["waiting"], measured["waiting"], measured["waiting of many"]]
    for beginning, expected in (
        ("messages per second", seconds),
        ("server CPU for them", [rate * measured["server"] for rate in seconds]),
        ("server CPU for waiting", [agents * each for agents, each in zip(AGENTS, waiting)]),
        ("server memory for waiting", [agents * measured["memory"] for agents in AGENTS]),
        ("Redis CPU", [rate * measured["redis"] for rate in seconds]),
        ("Redis memory", [agents * (measured["inbox"] + measured["ledger"]) for agents in AGENTS]),
        ("the same for mail", [agents * 5 * measured["message"] for agents in AGENTS]),
    ):
        _, cells = row(table, beginning)
        for cell, value in zip(cells, expected, strict=True):
            if cell == "-":
                assert value < (1e5 if "mail" in beginning else 1e-3), f"{beginning}: {value} is not nothing"
            else:
                written, off = rounded(cell)
                assert abs(written - value) <= off, f"{beginning}: {cell}, not {value}"
    text = (DOCS / "operations.md").read_text()
    assert f"({measured['server'] * 1e6:.0f} us each" in text and f"({measured['redis'] * 1e6:.0f} us each" in text
    (most,) = re.findall(r"that is ([\d,]+) a second at its very end", text)
    assert number(most) == pytest.approx(1 / measured["redis"], rel=0.01)


def test_servers_and_redis_are_as_many_as_the_sizing_needs(measured):
    table = rows("operations.md")
    defaults = chart.yaml.safe_load((chart.CHART / "values.yaml").read_text())
    waiters, limit = defaults["autoscaling"]["targetWaiters"], defaults["config"]["limits"]["replica_waiters"]
    _, (_, _, servers) = row(table, "**servers**") if "**servers**" in table else row(table, "servers")
    assert servers == f"{AGENTS[2] // waiters} by `targetWaiters` {waiters:,}; at least {AGENTS[2] // limit} by `replica_waiters` {limit:,}"
    needed = AGENTS[2] * (measured["inbox"] + measured["ledger"] + 5 * measured["message"])
    assert needed < 8e9 < 2 * needed, "8 GB of maxmemory"
    fits = f"{waiters * 2:,} waiting calls take {waiters * 2 * measured['memory'] / 1e6:.0f} MB"
    assert fits in (DOCS / "operations.md").read_text()


def test_the_runbook_has_the_same_memory_of_a_waiting_call(measured):
    said = set(re.findall(r"waiting call takes about (\d+) KB", (DOCS / "runbook.md").read_text() + (chart.CHART / "values.yaml").read_text()))
    assert said == {f"{measured['memory'] / 1e3:.0f}"}
