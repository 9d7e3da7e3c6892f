"""The table of docs/clients.md, from what a run printed.

    table.py FOLDER write    puts it between the markers of docs/clients.md
    table.py FOLDER check    whether docs/clients.md names the clients, versions and revisions that ran

FOLDER holds the outputs: CLIENT.MODE.TITLE.PART.out.
"""

import datetime
import json
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).parent.parent.parent
DOCUMENT = ROOT / "docs/clients.md"
BEGIN, END = "<!-- from tests/clients/run --write-docs: begin -->\n", "<!-- end -->\n"
COLUMNS = {
    "talk": "talks",
    "errors": "errors",
    "give up": "gives up",
    "killed": "is killed",
    "wait": "waits 65 s",
    "resources": "reads resources",
    "subscription": "watches its inbox",
    "prompts": "prompts",
}


def rmcp():
    """The Rust SDK, which `tests/it/rmcp_client.rs` drives: named, not counted."""
    locked = (ROOT / "Cargo.lock").read_text()
    version = re.search(r'name = "rmcp"\nversion = "(.*)"', locked)[1]
    heard = {"talk", "errors", "killed"}
    cells = ["lane `rust`" if group in heard else "not run" for group in COLUMNS]
    for mode, revision in (("initialize", "2025-11-25"), ("discover", "2026-07-28")):
        yield " | ".join(["| Rust", "`rmcp`", version, mode, revision, *cells, ""])


def conversations(folder):
    """Per client, in the order of their names: who it is, and what each group came to."""
    clients = {}
    for file in sorted(pathlib.Path(folder).glob("*.*.*.*.out")):
        who = None
        for line in file.read_text().splitlines():
            if line.startswith("client "):
                who = json.loads(line.removeprefix("client "))
                key = (who["language"], who["package"], who["version"], who["mode"])
                groups = clients.setdefault(key + (who["revision"],), {})
            elif match := re.match(r"(ok  |FAIL|n/a ) \[(.*?)\] [^:]*(?:: (.*))?", line):
                if who:
                    groups.setdefault(match[2], []).append((match[1].strip(), match[3]))
    return clients


def table(clients):
    notes, rows = [], []
    for who, groups in clients.items():
        cells = []
        for group in COLUMNS:
            came = groups.get(group, [])
            reasons = [reason for word, reason in came if word == "n/a"]
            if any(word == "FAIL" for word, _ in came):
                cells.append("**no**")
            elif any(word == "ok" for word, _ in came):
                cells.append("yes")
            elif reasons:
                if reasons[0] not in notes:
                    notes.append(reasons[0])
                cells.append(f"- ({notes.index(reasons[0]) + 1})")
            else:
                cells.append("not run")
        language, package, version, mode, revision = who
        rows.append(
            " | ".join([f"| {language}", f"`{package}`", version, mode, revision, *cells, ""])
        )
    head = ["", "client", "version", "mode", "revision", *COLUMNS.values()]
    lines = [
        "| " + " | ".join(head) + " |",
        "|-" * len(head) + "|",
        *(row.rstrip() for row in rows),
    ]
    lines += [row.rstrip() for row in rmcp()] + [""]
    lines += [f"{n}. {note}" for n, note in enumerate(notes, 1)]
    return lines


def main():
    folder, verb = sys.argv[1:]
    clients = conversations(folder)
    before, rest = DOCUMENT.read_text().split(BEGIN)
    old, after = rest.split(END)
    if verb == "write":
        lines = [*table(clients), "", f"Run on {datetime.date.today()}.", ""]
        DOCUMENT.write_text(before + BEGIN + "\n".join(lines) + END + after)
        return 0
    named = [re.sub(r"[`\s]", "", line).split("|")[1:6] for line in old.splitlines()]
    missing = [who for who in clients if list(who) not in named]
    for who in missing:
        print("not in docs/clients.md:", *who)
    print(
        "FAIL" if missing else "ok  ",
        "[docs] docs/clients.md names the clients, versions and revisions that ran",
    )
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
