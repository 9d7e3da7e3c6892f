#!/bin/bash
# docker-compose.yml for real: built, started, scaled, hurt and stopped, with real clients talking through its load balancer.
# shellcheck source=tests/deploy/project.sh
source "$(dirname "$0")/project.sh"

texts() { call get_messages "{\"client_id\": \"$1\"}" | python3 -c 'import json, sys; print(*[m["text"] for m in json.load(sys.stdin)["messages"]])'; }

# --- the checks ---

starts() { up up -d && healthy redis 1 && healthy server 1 && healthy lb 1; }

image() { inspect '{{.Image}}' "$(containers server | head -1)"; }

hardened() {
  local id user
  id=$(containers server)
  user=$(inspect '{{.Config.User}}' "$(image)")
  [ "$user" = 65532:65532 ] || { echo "runs as $user"; return 1; }
  [ "$(inspect '{{.HostConfig.ReadonlyRootfs}}' "$id")" = true ] || { echo "root file system is writable"; return 1; }
  ! "$docker" exec "$id" /bin/sh -c true >/dev/null 2>&1 || { echo "the image has a shell"; return 1; }
  "$docker" exec "$id" /mcp-messaging healthcheck
}

# The image by itself, as `docker run` starts it: its own HEALTHCHECK, and nothing but memory to keep mail in.
runs_alone() {
  local id status=starting
  id=$("$docker" run -d --label "com.docker.compose.project=$project" --label com.docker.compose.service=alone --read-only --cap-drop ALL \
    --security-opt no-new-privileges -e QUEUE_BACKEND=memory -e MCP_MESSAGING__AUTH__MODE=none "$(image)") || return 1
  for _ in $(seq 60); do
    status=$(inspect '{{.State.Health.Status}}' "$id")
    [ "$status" = starting ] || break
    sleep 0.5
  done
  echo "     takes $("$docker" stats --no-stream --format '{{.MemUsage}}' "$id" | cut -d ' ' -f 1) of memory"
  "$docker" rm -f "$id" >/dev/null
  [ "$status" = healthy ] || { echo "its health: $status"; return 1; }
}

described() {
  local labels label bytes
  # shellcheck disable=SC2016 # the engine's variables
  labels=$(inspect '{{range $name, $value := .Config.Labels}}{{$name}}={{$value}}{{"\n"}}{{end}}' "$(image)")
  for label in title description licenses base.name version revision; do
    grep -q "^org\.opencontainers\.image\.$label=." <<<"$labels" || { echo "no label $label"; return 1; }
  done
  bytes=$("$docker" save "$(image)" | gzip | wc -c)
  echo "     $((bytes / 1000000)) MB to pull, $(($(inspect '{{.Size}}' "$(image)") / 1000000)) MB unpacked"
  [ "$bytes" -lt 30000000 ] || { echo "more than 30 MB to pull"; return 1; }
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
[ "$failed" = 0 ] || { tail -n 30 "$logs"; finish; exit 1; }
check "one command starts everything, healthy" starts
[ "$failed" = 0 ] || { "${compose[@]}" -p "$project" logs --no-color --tail 20 </dev/null; finish; exit 1; }
check "the server's container is hardened" hardened
check "the image says what it is and is small" described
check "the image alone is healthy" runs_alone
check "the binary names its crates and their versions" names_its_crates
check "only the load balancer is published, to this machine" loopback_only
check "three replicas share the work" scales
check "real clients talk through the load balancer" conversation
check "a killed replica loses nothing and nobody notices" survives_a_killed_replica
check "a killed Redis comes back with its mail" survives_a_killed_redis
check "the server stops cleanly with a call waiting" stops_cleanly
finish
