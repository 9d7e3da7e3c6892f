"""Prints a value set as it renders, sorted and without what every release changes. helm/update keeps it in snapshots/."""

import sys

import yaml

import chart


def settled(document):
    """Without versions and hashes."""
    if isinstance(document, dict):
        return {
            key: "..." if key in ("helm.sh/chart", "app.kubernetes.io/version") or key.startswith("checksum/") else settled(value)
            for key, value in document.items()
        }
    if isinstance(document, list):
        return [settled(item) for item in document]
    return document


class Plain(yaml.SafeDumper):
    """Long texts as blocks, no aliases."""

    def ignore_aliases(self, data):
        return True


def block(dumper, text):
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


Plain.add_representer(str, block)


def snapshot(name):
    documents = sorted(chart.rendered(name), key=lambda doc: (doc["kind"], doc["metadata"]["name"]))
    return yaml.dump_all(map(settled, documents), Dumper=Plain, width=140)


if __name__ == "__main__":
    sys.stdout.write(snapshot(sys.argv[1]))
