#!/bin/bash
# docker-compose.yml's profiles `observability` and `demo` for real, as docs/observability.md starts them, beside three replicas: Prometheus
# scrapes them and evaluates our rules, the dashboards' queries find data, and the spans of a message come to Jaeger through the collector.
# An image that is only a stand-in (tests/deploy/base-images) says what it leaves open; one that cannot be had at all is left out.
# shellcheck source=tests/deploy/project.sh
source "$(dirname "$0")/project.sh"
compose+=(--profile observability --profile demo)

PROMETHEUS_PORT=$(free_port) GRAFANA_PORT=$(free_port) JAEGER_PORT=$(free_port)
export PROMETHEUS_PORT GRAFANA_PORT JAEGER_PORT OTEL_EXPORTER_OTLP_ENDPOINT=http://otel-collector:4318
parts=(prometheus otel-collector jaeger grafana)
ask() { python3 tests/deploy/monitoring.py "$@"; }

# As a user's `up` would, who pulls what is not there.
had() { # had SERVICE
  local image
  image=$(awk -v service="  $1:" '$0 == service { found = 1 } found && $1 == "image:" { print $2; exit }' docker-compose.yml)
  "$docker" image inspect "$image" >/dev/null 2>&1 || timeout 300 "$docker" pull "$image" >>"$logs" 2>&1
}

# --- the checks ---

starts() {
  up up -d --scale server=3 redis server lb "${there[@]}" || return 1
  local part
  healthy redis 1 && healthy server 3 && healthy lb 1 || return 1
  for part in "${there[@]}"; do
    case $part in prometheus | grafana) healthy "$part" 1 || return 1 ;; esac # the others' images have nothing to ask with
  done
}

traffic() {
  local n
  for n in $(seq 10); do
    call send_message "{\"sender_id\": \"a\", \"recipient_id\": \"b\", \"message\": \"$n\"}" >/dev/null || return 1
    call get_messages '{"client_id": "b"}' >/dev/null || return 1
  done
}

demo() {
  up up -d --no-recreate --scale server=3 demo || return 1
  for _ in $(seq 30); do
    "$docker" logs "$(containers demo)" 2>&1 | grep -qE '[1-9][0-9]* questions were answered$' && return
    sleep 1
  done
  "$docker" logs --tail 5 "$(containers demo)"
  return 1
}

# A message and its receiver, each in a trace of its own client.
traced() {
  local sent received
  read -r sent received < <(python3 -c 'import secrets; print(secrets.token_hex(16), secrets.token_hex(16))')
  parent() { echo "{\"traceparent\": \"00-$1-00f067aa0ba902b7-01\"}"; }
  call send_message '{"sender_id": "c", "recipient_id": "d", "message": "followed"}' "$(parent "$sent")" >/dev/null || return 1
  call get_messages '{"client_id": "d"}' "$(parent "$received")" >/dev/null || return 1
  ask trace "http://127.0.0.1:$JAEGER_PORT" "$sent" "$received"
}

steady() {
  local part id
  for part in "${there[@]}" server demo; do
    for id in $(containers "$part"); do
      [ "$(inspect '{{.State.Running}} {{.RestartCount}}' "$id")" = "true 0" ] || { echo "$part: $(inspect '{{json .State}}' "$id")"; return 1; }
    done
  done
}

there=()
for part in "${parts[@]}"; do
  if had "$part"; then there+=("$part")
  else
    left_out "$part" "its image cannot be had here. Its files are checked by tests/observe: test_compose.py (data sources, provisioning, mounts), \
test_dashboards.py (Grafana's schema, the linter's rules, every query)"
  fi
done

check "the image builds" builds
[ "$failed" = 0 ] || { tail -n 30 "$logs"; finish; exit 1; }
check "the profile starts beside three replicas" starts
[ "$failed" = 0 ] || { "${compose[@]}" -p "$project" logs --no-color --tail 20 </dev/null; finish; exit 1; }
for part in "${there[@]}"; do
  open=$(inspect '{{index .Config.Labels "stand-in"}}' "$(containers "$part")")
  [ -z "$open" ] || echo "     $part is a stand-in: $open"
done
prometheus=http://127.0.0.1:$PROMETHEUS_PORT
check "Prometheus finds and scrapes each replica" ask targets "$prometheus" 3
check "Prometheus evaluates every rule" ask rules "$prometheus"
check "messages pass" traffic
check "each replica's metrics are there" ask metrics "$prometheus" 3
check "the demo talks" demo
check "each dashboard shows data" ask dashboards "$prometheus"
check "a message is followed from its send to its receive" traced
check "no span is lost and no alert fires" ask calm "$prometheus"
check "nothing was restarted" steady
finish
