# shellcheck shell=bash
# A Compose project for one test, gone afterwards, and what its checks are written with. Sourced by compose.sh and observability.sh.
# Needs a container engine; without one it says so and ends with 77. tests/deploy/with-engine brings one.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
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

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

# Compose 1.x builds with the client that it finds first.
PATH=$(dirname "$(command -v "$docker")"):$PATH
project=mcpmessaging$$
MCP_PORT=$(free_port)
export MCP_PORT DOCKER_BUILDKIT=1 COMPOSE_DOCKER_CLI_BUILD=1 BUILDKIT_PROGRESS=plain
url=http://127.0.0.1:$MCP_PORT
name=$(basename "$0" .sh)
logs=target/deploy-$name.log
mkdir -p target
: >"$logs"
up() { "${compose[@]}" -p "$project" "$@" </dev/null >>"$logs" 2>&1; }
cleanup() {
  "${compose[@]}" -p "$project" logs --no-color </dev/null >"target/deploy-$name-services.log" 2>&1 || true
  up down -v --rmi local --remove-orphans --timeout 5 || true
}
trap cleanup EXIT
trap 'exit 130' INT TERM

passed=0 failed=0 skipped=0
check() { # check TITLE COMMAND...
  local title=$1 started=$SECONDS; shift
  if "$@"; then echo "ok   $title ($((SECONDS - started)) s)"; passed=$((passed + 1))
  else echo "FAIL $title"; failed=$((failed + 1)); fi
}
left_out() { echo "skip $1: $2"; skipped=$((skipped + 1)); } # left_out TITLE REASON
finish() { echo "$passed passed, $failed failed, $skipped skipped"; [ "$failed" = 0 ]; }

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

call() { # call TOOL ARGUMENTS [META]: structuredContent as JSON
  local none='{}'
  python3 - "$url/mcp" "$1" "$2" "${3:-$none}" <<'P'
import json, sys, urllib.request
url, tool, arguments, meta = sys.argv[1:]
params = {"name": tool, "arguments": json.loads(arguments), "_meta": json.loads(meta)}
body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
headers = {"Content-Type": "application/json", "Accept": "application/json"}
with urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode(), headers), timeout=20) as answer:
    result = json.load(answer)["result"]
if result.get("isError"):
    sys.exit(result["content"][0]["text"])
print(json.dumps(result["structuredContent"]))
P
}

builds() { up build; }
