"""Reads docker-compose.yml as Compose resolves it and checks what README and comments promise. Argument: the compose command."""

import json
import subprocess
import sys

config = json.loads(
    subprocess.check_output([sys.argv[1], "-p", "check", "config", "--format", "json"])
)
services = config["services"]
assert set(services) == {"redis", "server", "lb"}, services.keys()

published = {name: service["ports"] for name, service in services.items() if "ports" in service}
assert set(published) == {"lb"}, f"published: {published}"
(port,) = published["lb"]
assert (port["host_ip"], port["published"], port["target"]) == ("127.0.0.1", "8123", 8123), port

redis = " ".join(services["redis"]["command"])
assert "--appendonly yes" in redis and "--maxmemory-policy noeviction" in redis, redis
assert config["networks"]["store"]["internal"], "Redis can reach the world"
assert set(services["redis"]["networks"]) == {"store"}, "Redis is on another network"

environment = services["server"]["environment"]
assert environment["QUEUE_BACKEND"] == "redis" and environment["REDIS_URL"].startswith("redis://redis:"), environment
assert "container_name" not in services["server"], "a fixed name forbids --scale"

for name, service in services.items():
    assert service["restart"] == "unless-stopped", f"{name} is not restarted"
    assert service["healthcheck"], f"{name} has no health check"
    assert service["read_only"] and service["cap_drop"] == ["ALL"], f"{name} is not hardened"
