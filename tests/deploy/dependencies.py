"""What `cargo deny check bans licenses sources` would say, for machines without cargo-deny: reads deny.toml and `cargo metadata`.

It knows the keys that our deny.toml uses and no others.
"""

import json
import re
import subprocess
import sys
import tomllib

CRATES_IO = "registry+https://github.com/rust-lang/crates.io-index"


def acceptable(expression, allowed):
    """Whether an SPDX expression can be met with allowed licenses only."""
    tokens = re.findall(r"\(|\)|[^\s()]+", expression.replace("/", " OR "))
    python = []
    for token in tokens:
        if token in "()":
            python.append(token)
        elif token in ("AND", "OR"):
            python.append(token.lower())
        elif token == "WITH" or (python and python[-1] == "WITH"):
            # "X WITH exception": another license than X. Left out of the allow list, so it is refused.
            python[-1] = "False" if token != "WITH" else "WITH"
        else:
            python.append(str(token in allowed))
    return eval(" ".join(python), {})  # nothing but True, False, and, or and parentheses


def main():
    with open("deny.toml", "rb") as file:
        rules = tomllib.load(file)
    allowed = set(rules["licenses"]["allow"])
    banned = {entry["name"] for entry in rules["bans"]["deny"]}
    metadata = json.loads(
        subprocess.check_output(["cargo", "metadata", "--format-version", "1", "--locked"])
    )
    faults = []
    for package in metadata["packages"]:
        name = f"{package['name']} {package['version']}"
        if package["source"] not in (None, CRATES_IO):
            faults.append(f"{name} comes from {package['source']}")
        if package["name"] in banned:
            faults.append(f"{name} is banned")
        if not acceptable(package["license"] or "none", allowed):
            faults.append(f"{name} is under {package['license']}")
        if package["source"] is None:
            for dependency in package["dependencies"]:
                if dependency["req"] == "*":
                    faults.append(f"{dependency['name']} has a wildcard version")
    for fault in faults:
        print(fault)
    print(f"{len(metadata['packages'])} packages looked at")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
