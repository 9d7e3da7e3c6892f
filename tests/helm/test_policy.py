"""A policy checker's findings are none, or explained here; an explanation that explains nothing fails too."""

import json
import subprocess

import pytest

import chart

SETS = ("everything", "gateway", "trial", "restricted")
# (check, kind): why we differ.
EXPLAINED = {
    ("CKV_K8S_11", "Deployment"): "No CPU limit: throttling delays wake-ups, and config.http.workers bounds the threads",
    ("CKV_K8S_11", "StatefulSet"): "As for the servers; Redis has one thread that works",
    ("CKV_K8S_11", "Job"): "It runs for a second",
    ("CKV_K8S_11", "Pod"): "helm test: it runs for seconds",
    ("CKV_K8S_35", "Deployment"): "The server takes the URL of Redis and the master keys from its environment; it prints and logs no environment",
    ("CKV_K8S_35", "Job"): "As for the servers",
    ("CKV_K8S_35", "Pod"): "helm test, for the master keys: as for the servers; a file in their place: config.auth.master_keys_file",
    ("CKV_K8S_8", "Pod"): "helm test: a pod that ends has no liveness",
    ("CKV_K8S_9", "Pod"): "helm test: nobody calls it",
    ("CKV_K8S_43", "Deployment"): "image.digest is the user's to set: ci/restricted-values.yaml does, and has no finding",
    ("CKV_K8S_43", "StatefulSet"): "The trial Redis; redis.image.digest",
    ("CKV_K8S_43", "Pod"): "helm test; tests.image.digest",
    ("CKV_K8S_15", "Deployment"): "IfNotPresent: a node can start a server while the registry is away; image.pullPolicy",
    ("CKV_K8S_15", "StatefulSet"): "As for the servers",
    ("CKV_K8S_15", "Pod"): "As for the servers",
}


@pytest.fixture(scope="module")
def findings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("manifests")
    for name in SETS:
        (folder / f"{name}.yaml").write_text(chart.text_of(name))
    done = subprocess.run(
        [chart.TOOLS / "policy" / "bin" / "checkov", "-d", ".", "--framework", "kubernetes", "--compact", "--quiet", "--skip-download", "-o", "json"],
        cwd=folder, capture_output=True, text=True, timeout=300,
    )
    report = json.loads(done.stdout)
    assert report["summary"]["parsing_errors"] == 0 and report["summary"]["passed"] > 500, report["summary"]
    return {
        (finding["check_id"], finding["resource"].split(".")[0], finding["file_path"].strip("/").removesuffix(".yaml"), finding["check_name"])
        for finding in report["results"]["failed_checks"]
    }


def test_no_finding_is_unexplained(findings):
    unexplained = sorted(finding for finding in findings if finding[:2] not in EXPLAINED)
    assert not unexplained, unexplained


def test_no_explanation_is_left_over(findings):
    assert set(EXPLAINED) == {finding[:2] for finding in findings}


def test_a_pinned_image_has_no_finding(findings):
    assert not [finding for finding in findings if finding[2] == "restricted" and finding[0] in ("CKV_K8S_43", "CKV_K8S_15")]
