"""What was made from elsewhere is up to date, and what stands there cannot be made by a mistake."""

import shutil
import subprocess

import yaml

import chart


def test_what_is_made_is_up_to_date():
    done = subprocess.run([chart.ROOT / "helm" / "update", "--check"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"run helm/update\n{done.stdout}{done.stderr}"


def test_rules_and_dashboards_are_carried_as_they_are(tmp_path):
    """With files of this test's own: the templates of alerts are Prometheus', not Helm's."""
    copy = tmp_path / "mcp-messaging"
    shutil.copytree(chart.CHART, copy)
    rules = 'groups:\n- name: g\n  rules:\n  - alert: A\n    expr: up == 0\n    annotations: {summary: "{{ $labels.pod }} {{ $value }}"}\n'
    (copy / "files" / "rules.yml").write_text(rules)
    (copy / "files" / "dashboards").mkdir(exist_ok=True)
    for old in (copy / "files" / "dashboards").iterdir():
        old.unlink()
    dashboard = '{\n  "title": "{{ not helm }}",\n  "panels": [{"expr": "a{b=\\"c\\"}", "legend": "{{pod}}"}]\n}\n'
    (copy / "files" / "dashboards" / "mailbox.json").write_text(dashboard)
    for helm in chart.HELMS:
        done = chart.template(helm, "--values", chart.values_file("everything"), chart=copy)
        assert done.returncode == 0, done.stderr
        docs = chart.documents(done.stdout)
        assert chart.named(docs, "PrometheusRule")["spec"] == yaml.safe_load(rules)
        config = chart.named(docs, "ConfigMap", "-mailbox")
        assert config["data"]["mailbox.json"].strip() == dashboard.strip()
        assert config["metadata"]["labels"]["grafana_dashboard"] == "1"
        assert config["metadata"]["annotations"]["grafana_folder"] == "Agents"


def test_the_files_of_the_repository_are_in_the_chart():
    docs = chart.rendered("everything")
    rules = chart.ROOT / "deploy" / "prometheus" / "rules.yml"
    assert [doc["spec"] for doc in docs if doc["kind"] == "PrometheusRule"] == (
        [yaml.safe_load(rules.read_text())] if rules.exists() else []
    )
    dashboards = list((chart.ROOT / "deploy" / "grafana" / "dashboards").glob("*.json"))
    carried = [doc for doc in docs if "grafana_dashboard" in doc["metadata"]["labels"]]
    assert len(carried) == len(dashboards)
