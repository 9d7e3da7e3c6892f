"""What the chart says to the server, the server accepts; and helm test's pods find what they are for."""

import os
import subprocess
import tomllib

import pytest

import chart
from pods import MASTER_KEYS, Pod, environment_of
from processes import BINARY, Redis, free_port, get


def check_config(docs, tmp_path, environment):
    path = tmp_path / "config.toml"
    path.write_text(chart.named(docs, "ConfigMap", "mcp-messaging")["data"]["config.toml"])
    return subprocess.run([BINARY, "check-config", "--config", path], env=environment, capture_output=True, text=True, timeout=30)


@pytest.mark.parametrize("name", [name for name in chart.SETS if name != "gateway"])
def test_the_server_accepts_its_configuration(name, tmp_path):
    """With the chart's plain environment too; the URL as ci's sets have it, with a password put in."""
    docs = chart.rendered(name)
    environment = {item["name"]: item.get("value", "") for item in chart.container(docs)["env"]}
    environment.pop("SSL_CERT_FILE", None)  # test_redis.py has an authority
    urls = [doc["stringData"]["url"] for doc in docs if doc["kind"] == "Secret"]
    url = environment["REDIS_URL"] or (urls or ["redis://of-an-existing-secret:6379"])[0]
    environment["REDIS_URL"] = url.replace("$(REDIS_PASSWORD)", "p")
    if name != "trial":
        assert environment["MCP_MESSAGING__AUTH__MASTER_KEYS"] == "", "from a Secret"
        environment["MCP_MESSAGING__AUTH__MASTER_KEYS"] = MASTER_KEYS
    done = check_config(docs, tmp_path, environment)
    assert done.returncode == 0, done.stderr
    shown = tomllib.loads(done.stdout)
    assert shown["auth"]["mode"] == ("none" if name == "trial" else "key") and shown["http"]["port"] == 8123
    assert shown["ops"]["listen"] == "0.0.0.0:9090"
    if name == "everything":
        assert shown["messaging"]["ttl_seconds"] == 600 and shown["redis"]["command_timeout_seconds"] == 1.5
        assert shown["limits"]["inbox_bytes"] == 33554432, "a large whole number"
        assert shown["limits"]["inbox_messages"] == 2000000, "of extraEnv"
        assert shown["http"]["allowed_origins"] == ["https://app.example.com"]
        assert "10.0.0.10:8123" in shown["http"]["allowed_hosts"] and "mail.example.org" in shown["http"]["allowed_hosts"]
        assert shown["log"]["level"] == "info,mcp_messaging=debug"


@pytest.mark.parametrize(
    "wrong, words",
    [
        ({"http": {"worker": 2}}, "worker"),
        ({"limit": {"recipients": 2}}, "limit"),
        ({"messaging": {"ttl_seconds": "long"}}, "messaging.ttl_seconds"),
        ({"messaging": {"ttl_seconds": 0}}, "messaging.ttl_seconds"),
        ({"log": {"format": 'a"b\\c\n'}}, "log.format"),
    ],
)
def test_a_setting_that_the_server_does_not_know_is_named(wrong, words, tmp_path):
    """As in a pod, where it ends the start, and in the hook, where it ends the upgrade."""
    docs = chart.render({"redis": {"url": "redis://h"}, "config": wrong})
    done = check_config(docs, tmp_path, {"REDIS_URL": "redis://h", "MCP_MESSAGING__AUTH__MASTER_KEYS": MASTER_KEYS})
    assert done.returncode == 78 and words in done.stderr, done.stderr


def test_a_server_starts_with_the_master_keys_and_not_without(tmp_path):
    docs = chart.render({"redis": {"url": "redis://h"}})
    environment = {"REDIS_URL": "redis://h"}
    done = check_config(docs, tmp_path, environment)
    assert done.returncode == 78 and "auth.master_keys" in done.stderr, done.stderr
    done = check_config(docs, tmp_path, {**environment, "MCP_MESSAGING__AUTH__MASTER_KEYS": MASTER_KEYS})
    assert done.returncode == 0 and MASTER_KEYS.split(":")[1] not in done.stdout, done.stderr


def test_with_a_mode_texts_are_sealed_with_the_secret_and_not_without(tmp_path):
    values = {"redis": {"url": "redis://h"}, "encryption": {"existingSecret": "texts"}, "config": {"encryption": {"mode": "require"}}}
    docs = chart.render(values)
    environment = {"REDIS_URL": "redis://h", "MCP_MESSAGING__AUTH__MASTER_KEYS": MASTER_KEYS}
    done = check_config(docs, tmp_path, environment)
    assert done.returncode == 78 and "encryption.keys" in done.stderr, done.stderr
    secret = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
    done = check_config(docs, tmp_path, {**environment, "MCP_MESSAGING__ENCRYPTION__KEYS": f"e1:{secret}"})
    assert done.returncode == 0 and secret not in done.stdout and 'mode = "require"' in done.stdout, done.stderr
    env = {each["name"]: each for each in chart.container(docs)["env"]}
    assert env["MCP_MESSAGING__ENCRYPTION__KEYS"]["valueFrom"]["secretKeyRef"] == {"name": "texts", "key": "encryption-keys"}


def test_every_setting_can_be_set(tmp_path):
    """All of default.toml but what the chart decides comes through it unchanged in kind."""
    with open(chart.ROOT / "deploy" / "config" / "default.toml", "rb") as file:
        defaults = tomllib.load(file)
    for section, key in (("http", "host"), ("http", "port"), ("http", "allowed_hosts"), ("http", "drain_seconds"), ("ops", "listen"), ("auth", "mode"), ("auth", "master_keys"), ("auth", "master_keys_file"), ("encryption", "keys"), ("encryption", "keys_file"), ("queue", "backend"), ("redis", "url")):
        del defaults[section][key]
    docs = chart.render({"redis": {"url": "redis://h"}, "config": {section: keys for section, keys in defaults.items() if keys}})
    done = check_config(docs, tmp_path, {"REDIS_URL": "redis://h", "MCP_MESSAGING__AUTH__MASTER_KEYS": MASTER_KEYS})
    assert done.returncode == 0, done.stderr
    shown = tomllib.loads(done.stdout)
    for section, keys in defaults.items():
        for key, value in keys.items():
            assert shown[section][key] == value, f"{section}.{key}"


MODES = {"key": chart.KEYS, "none": {"auth": {"mode": "none"}}}


@pytest.mark.parametrize("mode", MODES)
def test_helm_test_passes_on_a_release_that_works_and_fails_on_one_that_does_not(mode, tmp_path):
    with Redis(tmp_path / "redis") as redis:
        docs = chart.render({"redis": {"url": f"redis://127.0.0.1:{redis.port}"}, **MODES[mode]})
        pod = Pod(docs, tmp_path / "pod")
        try:
            pod.until_ready()
            done = run_test_pod(docs, "-test-doctor", pod.port, pod.ops)
            assert done.returncode == 0, done.stdout + done.stderr
            for looked_at in ("auth", "readiness", "round-trip", "wake-up"):
                assert f"ok      {looked_at}" in done.stdout, done.stdout
            assert ("the credential is taken" in done.stdout) == (mode == "key"), done.stdout
            sent = 'mcp_messaging_messages_total{event="delivered"} 7'
            assert sent in get(pod.ops, "/metrics")[1], "a message there and back, and one for each of six waiting readers"
            redis.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
            done = run_test_pod(docs, "-test-doctor", pod.port, pod.ops)
            assert done.returncode == 1 and "noeviction" in done.stdout, done.stdout
            redis.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")
            if mode == "key":
                stranger = {"mailbox-keys": {"master-keys": f"m1:{'A' * 43}"}}
                done = run_test_pod(docs, "-test-doctor", pod.port, pod.ops, stranger)
                assert done.returncode == 1 and "FAILED  auth" in done.stdout, "servers have other master keys than the Secret"
            else:
                done = run_test_pod(docs, "-test-round-trip", pod.port, pod.ops)
                assert done.returncode == 0 and "sent and read back" in done.stdout, done
                assert run_test_pod(docs, "-test-round-trip", pod.port, pod.ops).returncode == 0, "it can be repeated"
                # The endpoint's own port answers, but not as a mailbox does.
                assert run_test_pod(docs, "-test-round-trip", pod.ops, pod.ops).returncode != 0
            assert run_test_pod(docs, "-test-doctor", pod.ops, pod.ops).returncode == 1
        finally:
            pod.end()
        nobody = free_port()
        assert run_test_pod(docs, "-test-doctor", nobody, nobody).returncode == 1
        if mode == "none":
            assert run_test_pod(docs, "-test-round-trip", nobody, nobody).returncode != 0


def test_helm_test_of_a_service_without_the_ops_port(tmp_path):
    """A LoadBalancer's does not carry it: all but readiness is looked at."""
    with Redis(tmp_path / "redis") as redis:
        docs = chart.render({"redis": {"url": f"redis://127.0.0.1:{redis.port}"}, "service": {"type": "LoadBalancer"}})
        pod = Pod(docs, tmp_path / "pod")
        try:
            pod.until_ready()
            done = run_test_pod(docs, "-test-doctor", pod.port, None)
            assert done.returncode == 0 and "skipped readiness" in done.stdout and "ok      round-trip" in done.stdout, done.stdout
        finally:
            pod.end()


def run_test_pod(docs, suffix, port, ops, secrets=None):
    """Its command and environment; the Service's name is 127.0.0.1 here."""
    spec = chart.named(docs, "Pod", suffix)["spec"]
    (container,) = spec["containers"]
    service = chart.named(docs, "Service")
    places = {item["port"]: {"http": port, "ops": ops}[item["name"]] for item in service["spec"]["ports"]}

    def here(text):
        for number, place in places.items():
            text = text.replace(f"{service['metadata']['name']}:{number}", f"127.0.0.1:{place}")
        return text

    environment = environment_of(container, {"mailbox-keys": {"master-keys": MASTER_KEYS}} | (secrets or {}))
    environment = {name: here(value) for name, value in environment.items()}
    command = container.get("command", [str(BINARY)]) + [here(word) for word in container["args"]]
    if command[0] == "sh":
        environment["PATH"] = os.environ["PATH"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


TOKENS = {
    "auth": {"mode": "oauth"},
    "config": {"oauth": {"issuer": "https://id.example.com", "resource": "https://mail.example.com/mcp"}},
}


def test_with_tokens_a_server_says_where_to_log_in_and_nothing_looks_for_keys(tmp_path):
    with Redis(tmp_path / "redis") as redis:
        docs = chart.render({"redis": {"url": f"redis://127.0.0.1:{redis.port}"}, **TOKENS})
        assert not [doc for doc in docs if doc["kind"] == "Pod"], "helm test has no token"
        assert "MASTER_KEYS" not in str(docs)
        pod = Pod(docs, tmp_path / "pod")
        try:
            pod.until_ready()
            status, said = get(pod.port, "/.well-known/oauth-protected-resource/mcp", host="localhost")
            assert status == 200 and '"authorization_servers":["https://id.example.com"]' in said.replace(" ", ""), said
        finally:
            pod.end()


def test_behind_a_proxy_that_names_agents_a_server_refuses_those_who_come_past_it(tmp_path):
    named = {"auth": {"mode": "proxy"}, "config": {"proxy": {"trusted": ["10.0.0.10"]}}}
    with Redis(tmp_path / "redis") as redis:
        docs = chart.render({"redis": {"url": f"redis://127.0.0.1:{redis.port}"}, **named})
        assert not [doc for doc in docs if doc["kind"] == "Pod"], "helm test is no proxy"
        assert "MASTER_KEYS" not in str(docs)
        pod = Pod(docs, tmp_path / "pod")
        try:
            pod.until_ready()
            status, said = get(pod.port, "/api/sessions", host="localhost")
            assert status == 403 and "proxy" in said, said
        finally:
            pod.end()
    told = chart.notes({"redis": {"url": "redis://h"}, **named})
    assert "from 10.0.0.10 can be any agent" in told and "Nobody has to prove" not in told and "helm -n default test" not in told, told


def test_the_notes_say_how_agents_log_in_and_that_the_servers_must_reach_the_provider():
    told = chart.notes({"redis": {"url": "redis://h"}, **TOKENS})
    assert "log in at https://id.example.com" in told and "keys issue" not in told and "helm -n default test" not in told, told
    assert "networkPolicy.extraEgress" in told, told
    free = chart.notes({"redis": {"url": "redis://h"}, **TOKENS, "networkPolicy": {"enabled": False}})
    assert "networkPolicy.extraEgress" not in free, "there is no policy"
