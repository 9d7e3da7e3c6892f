"""The compose file's profile `observability`, read as Compose resolves it, and the files that it mounts. Its images are not run here."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import urllib.request

import pytest
import yaml

import generate
from installation import ROOT

PROFILE = {"prometheus", "grafana", "otel-collector", "jaeger"}
COMPOSE = pathlib.Path(sys.executable).with_name("docker-compose")


def resolved(*arguments, **environment):
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    command = [COMPOSE, "-p", "check", *arguments, "config", "--format", "json"]
    return json.loads(subprocess.check_output(command, cwd=ROOT, env={**kept, **environment}))


@pytest.fixture(scope="module")
def services():
    return resolved("--profile", "observability")["services"]


def test_without_the_profile_nothing_is_added():
    config = resolved()
    assert set(config["services"]) == {"redis", "server", "lb"}
    assert config["services"]["server"]["environment"]["OTEL_EXPORTER_OTLP_ENDPOINT"] is None, "traces would be exported"


def test_the_command_in_the_docs_sends_traces_to_the_collector(services):
    said = re.search(r"^ *OTEL_EXPORTER_OTLP_ENDPOINT=(\S+) docker compose --profile observability up", (ROOT / "docs/observability.md").read_text(), re.M)
    endpoint = re.fullmatch(r"http://([a-z-]+):(\d+)", said[1])
    assert endpoint[1] in services
    receiver = yaml.safe_load((ROOT / "deploy/otel-collector/config.yaml").read_text())["receivers"]["otlp"]["protocols"]["http"]
    assert receiver["endpoint"] == f"0.0.0.0:{endpoint[2]}"
    assert set(services["server"]["networks"]) & set(services[endpoint[1]]["networks"])
    server = resolved("--profile", "observability", OTEL_EXPORTER_OTLP_ENDPOINT=said[1])["services"]["server"]
    assert server["environment"]["OTEL_EXPORTER_OTLP_ENDPOINT"] == said[1]
    for file in ("docker-compose.yml", "README.md"):
        assert f"OTEL_EXPORTER_OTLP_ENDPOINT={said[1]} docker compose --profile observability up" in (ROOT / file).read_text()


def test_the_profile_has_what_it_needs(services):
    assert {name for name, service in services.items() if service.get("profiles")} == PROFILE


def test_the_demo_talks_to_the_load_balancer_and_reaches_nothing_else():
    services = resolved("--profile", "demo")["services"]
    demo, balancer = services["demo"], services["lb"]
    url = demo["command"][demo["command"].index("--url") + 1]
    host, port = re.fullmatch(r"http://([a-z]+):(\d+)/mcp", url).groups()
    assert host == "lb" and int(port) in {each["target"] for each in balancer["ports"]}
    assert set(demo["networks"]) == {"edge"} and "lb" in services["server"]["environment"]["MCP_MESSAGING__HTTP__ALLOWED_HOSTS"]
    assert demo["read_only"] and demo["cap_drop"] == ["ALL"]


@pytest.mark.parametrize("name", sorted(PROFILE))
def test_a_service_is_pinned_hardened_and_for_this_machine_only(services, name):
    service = services[name]
    assert re.fullmatch(r"[a-z/-]+:v?\d+\.\d+\.\d+", service["image"])
    assert service["read_only"] and service["cap_drop"] == ["ALL"] and service["security_opt"] == ["no-new-privileges:true"]
    assert service["restart"] == "unless-stopped"
    assert "store" not in service["networks"], "it could reach Redis"
    for port in service.get("ports", []):
        assert port["host_ip"] == "127.0.0.1"
    for volume in service.get("volumes", []):
        if volume["type"] == "bind":
            folder = pathlib.Path(volume["source"])
            assert folder.is_dir() and volume["read_only"]
            # Each image has a user of its own, who owns none of these files.
            for file in [folder, *folder.rglob("*")]:
                needed = 0o005 if file.is_dir() else 0o004
                assert file.stat().st_mode & needed == needed, f"{file} is not for all to read"


def test_prometheus_reads_its_configuration_and_finds_the_replicas(services):
    folder = ROOT / "deploy/prometheus"
    subprocess.run([shutil.which("promtool"), "check", "config", folder / "prometheus.yml"], check=True, capture_output=True)
    config = yaml.safe_load((folder / "prometheus.yml").read_text())
    (scrape,) = config["scrape_configs"]
    (found,) = scrape["dns_sd_configs"]
    assert found["names"] == ["server"] and "server" in services
    assert "server:8123" in (ROOT / "deploy/haproxy.cfg").read_text() and found["port"] == 8123


def test_metrics_are_served_under_a_replica_s_address(install):
    """Prometheus finds replicas by DNS and asks each by its address, which is no allowed Host."""
    replica = install(replicas=1).replicas[0]
    request = urllib.request.Request(f"{replica.url}/metrics", headers={"Host": "172.18.0.5:8123"})
    with urllib.request.urlopen(request, timeout=5) as answer:
        assert b"mcp_messaging_build_info" in answer.read()


def test_grafana_is_given_data_sources_and_dashboards(services):
    provisioning = ROOT / "deploy/grafana/provisioning"
    mounts = {volume["target"]: pathlib.Path(volume["source"]) for volume in services["grafana"]["volumes"]}
    assert mounts["/etc/grafana/provisioning"] == provisioning
    sources = yaml.safe_load((provisioning / "datasources/mcp-messaging.yaml").read_text())["datasources"]
    for source in sources:
        host, port = re.fullmatch(r"http://([a-z]+):(\d+)", source["url"]).groups()
        assert int(port) in {each["target"] for each in services[host]["ports"]}
    assert [source["type"] for source in sources if source.get("isDefault")] == ["prometheus"]
    (provider,) = yaml.safe_load((provisioning / "dashboards/mcp-messaging.yaml").read_text())["providers"]
    path = mounts[provider["options"]["path"]]
    assert {file.stem for file in path.glob("*.json")} == set(generate.BOARDS)
    home = pathlib.Path(services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert mounts[str(home.parent)] == path and (path / home.name).is_file()
    # $__rate_interval is four scrapes only if Grafana knows how often it is scraped.
    scrape = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())["global"]["scrape_interval"]
    assert sources[0]["jsonData"]["timeInterval"] == scrape


def test_the_collector_hands_spans_on(services):
    config = yaml.safe_load((ROOT / "deploy/otel-collector/config.yaml").read_text())
    for pipeline in config["service"]["pipelines"].values():
        for kind in ("receivers", "processors", "exporters"):
            assert set(pipeline[kind]) == set(config[kind]), f"{kind} that are not used, or not there"
    host, port = config["exporters"]["otlp/jaeger"]["endpoint"].split(":")
    assert host in services and port == "4317", "the OTLP port over gRPC"
    (folder,) = services["otel-collector"]["volumes"]
    (option,) = services["otel-collector"]["command"]
    assert option == f"--config={folder['target']}/config.yaml"


def test_no_port_is_taken_twice(services):
    published = [port["published"] for service in services.values() for port in service.get("ports", [])]
    assert len(published) == len(set(published)) == 4
