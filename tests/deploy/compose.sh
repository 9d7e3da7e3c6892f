#!/bin/bash
# docker-compose.yml for real: built, started, scaled, hurt and stopped, with real clients talking through its load balancer.
# Needs a container engine; without one it says so and ends with 77. tests/deploy/with-engine brings one.
set -euo pipefail
cd "$(dirname "$0")/../.."
docker=${DOCKER:-docker}

skip() { echo "skipped: $1"; exit 77; }
command -v "$docker" >/dev/null || skip "no container engine: $docker is not installed (tests/deploy/with-engine brings one)"
reason=$("$docker" info 2>&1 >/dev/null | head -1) || skip "no container engine answers: $reason (tests/deploy/with-engine brings one)"

if [ -n "${COMPOSE:-}" ]; then compose=("$COMPOSE")
elif "$docker" compose version >/dev/null 2>&1; then compose=("$docker" compose)
elif [ -x target/deploy/bin/docker-compose ]; then compose=(target/deploy/bin/docker-compose)
elif command -v docker-compose >/dev/null; then compose=(docker-compose)
else skip "no docker compose"
fi

# Compose 1.x builds with the client that it finds first.
PATH=$(dirname "$(command -v "$docker")"):$PATH
project=mcpmessaging$$
MCP_PORT=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
export MCP_PORT DOCKER_BUILDKIT=1 COMPOSE_DOCKER_CLI_BUILD=1 BUILDKIT_PROGRESS=plain
url=http://127.0.0.1:$MCP_PORT
logs=target/deploy-compose.log
up() { "${compose[@]}" -p "$project" "$@" </dev/null >>"$logs" 2>&1; }
: >"$logs"
cleanup() {
  "${compose[@]}" -p "$project" logs --no-color </dev/null >target/deploy-compose-services.log 2>&1 || true
  up down -v --rmi local --timeout 5 || true
}
trap cleanup EXIT
trap 'exit 130' INT TERM

passed=0 failed=0
check() { # check TITLE COMMAND...
  local title=$1 started=$SECONDS; shift
  if "$@"; then echo "ok   $title ($((SECONDS - started)) s)"; passed=$((passed + 1))
  else echo "FAIL $title"; failed=$((failed + 1)); fi
}

containers() { "$docker" ps -aq --filter "label=com.docker.compose.project=$project" --filter "label=com.docker.compose.service=$1"; }
inspect() { "$docker" inspect -f "$1" "$2"; }
healthy() { # healthy SERVICE COUNT
  local found id
  for _ in $(seq 60); do
    found=0
    for id in $(containers "$1"); do [ "$(inspect '{{.State.Health.Status}}' "$id")" = healthy ] && found=$((found + 1)); done
    [ "$found" = "$2" ] && return
    sleep 1
  done
  echo "$1: $found of $2 healthy"; return 1
}

call() { # call TOOL ARGUMENTS: structuredContent as JSON
  python3 - "$url/mcp" "$1" "$2" <<'P'
import json, sys, urllib.request
url, tool, arguments = sys.argv[1:]
body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": tool, "arguments": json.loads(arguments)}}
headers = {"Content-Type": "application/json", "Accept": "application/json"}
with urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode(), headers), timeout=20) as answer:
    result = json.load(answer)["result"]
if result.get("isError"):
    sys.exit(result["content"][0]["text"])
print(json.dumps(result["structuredContent"]))
P
}
texts() { call get_messages "{\"client_id\": \"$1\"}" | python3 -c 'import json, sys; print(*[m["text"] for m in json.load(sys.stdin)["messages"]])'; }

# --- the checks ---

builds() { up build; }
starts() { up up -d && healthy redis 1 && healthy server 1 && healthy lb 1; }

hardened() {
  local id image
  id=$(containers server)
  image=$(inspect '{{.Image}}' "$id")
  [ "$(inspect '{{.Config.User}}' "$image")" = 65532:65532 ] || { echo "runs as $(inspect '{{.Config.User}}' "$image")"; return 1; }
  [ "$(inspect '{{.HostConfig.ReadonlyRootfs}}' "$id")" = true ] || { echo "root file system is writable"; return 1; }
  ! "$docker" exec "$id" /bin/sh -c true >/dev/null 2>&1 || { echo "the image has a shell"; return 1; }
  "$docker" exec "$id" /mcp-messaging healthcheck
}

names_its_crates() {
  local binary=target/deploy-image-binary code=0
  "$docker" cp "$(containers server | head -1):/mcp-messaging" "$binary" >/dev/null 2>&1 || { echo "the binary cannot be copied"; return 1; }
  python3 tests/deploy/crates.py "$binary" || code=$?
  rm -f "$binary"
  return $code
}

loopback_only() {
  local id published
  for id in $(containers server) $(containers redis); do
    [ -z "$("$docker" port "$id")" ] || { echo "a port of $id is published"; return 1; }
  done
  published=$("$docker" port "$(containers lb)")
  [ "$published" = "8123/tcp -> 127.0.0.1:$MCP_PORT" ] || { echo "published: $published"; return 1; }
}

scales() {
  up up -d --no-recreate --scale server=3 && healthy server 3 || return 1
  # Each of them gets calls, as its log says.
  local id idle
  for _ in $(seq 20); do
    for _ in 1 2 3; do call get_messages '{"client_id": "nobody"}' >/dev/null || return 1; done
    idle=0
    for id in $(containers server); do "$docker" logs "$id" 2>&1 | grep -q tools/call || idle=$((idle + 1)); done
    [ "$idle" = 0 ] && return
    sleep 0.5
  done
  echo "$idle replica(s) got no call"; return 1
}

conversation() { # all of it is in target/deploy-compose-clients.log
  tests/clients/run "$url" >target/deploy-compose-clients.log 2>&1 && grep ' passed, ' target/deploy-compose-clients.log | sed 's/^/     /' && return
  grep -vE '^ok ' target/deploy-compose-clients.log | tail -n 60 | sed 's/^/     /'
  return 1
}

survives_a_killed_replica() {
  local victim n got
  call send_message '{"sender_id": "a", "recipient_id": "b", "message": "before"}' >/dev/null
  victim=$(containers server | head -1)
  "$docker" kill "$victim" >/dev/null
  for n in 1 2 3 4 5 6; do call send_message "{\"sender_id\": \"a\", \"recipient_id\": \"b\", \"message\": \"$n\"}" >/dev/null || return 1; done
  got=$(texts b)
  "$docker" start "$victim" >/dev/null
  [ "$got" = "before 1 2 3 4 5 6" ] || { echo "got: $got"; return 1; }
}

survives_a_killed_redis() {
  call send_message '{"sender_id": "a", "recipient_id": "c", "message": "kept"}' >/dev/null
  sleep 1.5 # appendfsync everysec
  "$docker" kill "$(containers redis)" >/dev/null
  "$docker" start "$(containers redis)" >/dev/null
  healthy redis 1
  local got
  for _ in $(seq 20); do got=$(texts c 2>/dev/null) && break; sleep 1; done
  [ "$got" = kept ] || { echo "got: $got"; return 1; }
}

stops_cleanly() {
  local id code started=$SECONDS
  call get_messages '{"client_id": "waiter", "wait_seconds": 60}' >/dev/null 2>&1 &
  sleep 1
  up stop server
  wait $! || true
  for id in $(containers server); do
    code=$(inspect '{{.State.ExitCode}}' "$id")
    [ "$code" = 0 ] || { echo "$id ended with $code"; return 1; }
  done
  [ $((SECONDS - started)) -lt 12 ] || { echo "took $((SECONDS - started)) s"; return 1; }
}

check "the image builds" builds
[ "$failed" = 0 ] || { tail -n 30 "$logs"; echo "$passed passed, $failed failed"; exit 1; }
check "one command starts everything, healthy" starts
[ "$failed" = 0 ] || { "${compose[@]}" -p "$project" logs --no-color --tail 20 </dev/null; echo "$passed passed, $failed failed"; exit 1; }
check "the server's container is hardened" hardened
check "the binary names its crates and their versions" names_its_crates
check "only the load balancer is published, to this machine" loopback_only
check "three replicas share the work" scales
check "real clients talk through the load balancer" conversation
check "a killed replica loses nothing and nobody notices" survives_a_killed_replica
check "a killed Redis comes back with its mail" survives_a_killed_redis
check "the server stops cleanly with a call waiting" stops_cleanly
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
