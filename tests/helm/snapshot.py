"""Prints a value set as it renders, sorted and without what every release changes. helm/update keeps it in snapshots/."""

import sys

import yaml

import chart


def elsewhere(key):
    """Versions and hashes; dashboards and alert rules, which test_files.py holds to their source."""
    return key in ("helm.sh/chart", "app.kubernetes.io/version", "groups") or key.startswith("checksum/") or key.endswith(".json")


def settled(document):
    """A document without what is kept elsewhere."""
    if isinstance(document, dict):
        return {key: "..." if elsewhere(key) else settled(value) for key, value in document.items()}
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
