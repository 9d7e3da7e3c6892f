{{/* One value as TOML. YAML's numbers come as floats, also whole ones. */}}
{{- define "mcp-messaging.toml" -}}
{{- if kindIs "slice" . -}}
[{{ range $i, $item := . }}{{ if $i }}, {{ end }}{{ include "mcp-messaging.toml" $item }}{{ end }}]
{{- else if kindIs "string" . -}}
{{ toJson . }}
{{- else if or (kindIs "map" .) (kindIs "invalid" .) -}}
{{ fail "config: a setting is a string, a number, true, false or a list, and stands in a section: config.SECTION.KEY" }}
{{- else -}}
{{ include "mcp-messaging.text" . }}
{{- end -}}
{{- end }}

{{/* A plain value as text; whole numbers without exponent. */}}
{{- define "mcp-messaging.text" -}}
{{- if and (kindIs "float64" .) (eq (floor .) .) }}{{ int64 . }}{{ else }}{{ . }}{{ end -}}
{{- end }}

{{/* The file that the server reads: what the chart decides over what `config` says. */}}
{{- define "mcp-messaging.config" -}}
{{- $own := dict
  "auth" (dict "mode" .Values.auth.mode)
  "queue" (dict "backend" "redis")
  "ops" (dict "listen" "0.0.0.0:9090")
-}}
{{- $service := include "mcp-messaging.fullname" . -}}
{{- $names := concat
  (include "mcp-messaging.publicNames" . | fromJsonArray)
  (list $service
    (printf "%s.%s" $service .Release.Namespace)
    (printf "%s.%s.svc" $service .Release.Namespace)
    (printf "%s.%s.svc.%s" $service .Release.Namespace .Values.clusterDomain))
  .Values.allowedHosts
-}}
{{- $_ := set $own "http" (dict "allowed_hosts" (uniq $names) "drain_seconds" .Values.drain.delaySeconds) -}}
{{- $all := mergeOverwrite (deepCopy .Values.config) $own -}}
{{- range $n, $section := keys $all | sortAlpha }}
{{- if $n }}

{{ end -}}
[{{ $section }}]
{{- $settings := get $all $section }}
{{- if not (kindIs "map" $settings) }}
{{- fail (printf "config.%s: must be a section with settings: config.%s.KEY" $section $section) }}
{{- end }}
{{- range $key := keys $settings | sortAlpha }}
{{ $key }} = {{ include "mcp-messaging.toml" (get $settings $key) }}
{{- end }}
{{- end }}
{{- end }}

{{/* Environment of a container that talks to Redis. Call with (dict "root" $ "redis" .Values.redis "secret" "name" "server" true). */}}
{{- define "mcp-messaging.env" -}}
{{- $env := dict -}}
{{- $redis := .redis -}}
{{- if .root.Values.redis.enabled -}}
{{- $_ := set $env "REDIS_URL" (dict "value" (printf "redis://%s-redis:6379" (include "mcp-messaging.fullname" .root))) -}}
{{- else if not $redis.existingSecret -}}
{{- $_ := set $env "REDIS_URL" (dict "valueFrom" (dict "secretKeyRef" (dict "name" .secret "key" "url"))) -}}
{{- else if $redis.url -}}
{{- $_ := set $env "REDIS_PASSWORD" (dict "valueFrom" (dict "secretKeyRef" (dict "name" $redis.existingSecret "key" $redis.passwordKey))) -}}
{{- $_ := set $env "REDIS_URL" (dict "value" $redis.url) -}}
{{- else -}}
{{- $_ := set $env "REDIS_URL" (dict "valueFrom" (dict "secretKeyRef" (dict "name" $redis.existingSecret "key" $redis.urlKey))) -}}
{{- end -}}
{{- if and (eq .root.Values.auth.mode "key") (not (include "mcp-messaging.masterKeysFile" .root)) -}}
{{- $_ := set $env "MCP_MESSAGING__AUTH__MASTER_KEYS" (dict "valueFrom" (dict "secretKeyRef" (dict "name" (include "mcp-messaging.masterKeys" .root) "key" .root.Values.auth.secretKey))) -}}
{{- end -}}
{{- with .root.Values.encryption -}}
{{- if .existingSecret -}}
{{- $_ := set $env "MCP_MESSAGING__ENCRYPTION__KEYS" (dict "valueFrom" (dict "secretKeyRef" (dict "name" .existingSecret "key" .secretKey))) -}}
{{- end -}}
{{- end -}}
{{- if .root.Values.redis.caSecret -}}
{{- $_ := set $env "SSL_CERT_FILE" (dict "value" "/etc/mcp-messaging/ca/ca.crt") -}}
{{- end -}}
{{- if .server -}}
{{- /* Also in the image; said here, so that no other image's defaults matter. */ -}}
{{- $_ := set $env "MCP_SERVER_HOST" (dict "value" "0.0.0.0") -}}
{{- $_ := set $env "MCP_SERVER_PORT" (dict "value" "8123") -}}
{{- with .root.Values.tracing -}}
{{- if .endpoint -}}
{{- $_ := set $env "OTEL_EXPORTER_OTLP_ENDPOINT" (dict "value" .endpoint) -}}
{{- $_ := set $env "OTEL_EXPORTER_OTLP_PROTOCOL" (dict "value" .protocol) -}}
{{- $_ := set $env "OTEL_SERVICE_NAME" (dict "value" .serviceName) -}}
{{- $_ := set $env "K8S_POD_NAME" (dict "valueFrom" (dict "fieldRef" (dict "fieldPath" "metadata.name"))) -}}
{{- $_ := set $env "K8S_NAMESPACE" (dict "valueFrom" (dict "fieldRef" (dict "fieldPath" "metadata.namespace"))) -}}
{{- $_ := set $env "OTEL_RESOURCE_ATTRIBUTES" (dict "value" "k8s.namespace.name=$(K8S_NAMESPACE),k8s.pod.name=$(K8S_POD_NAME),service.instance.id=$(K8S_POD_NAME)") -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- /* The hook's Redis user stays its own. */ -}}
{{- range $name, $value := .root.Values.extraEnv -}}
{{- if or $.server (not (hasPrefix "REDIS_" $name)) -}}
{{- $_ := set $env $name (ternary $value (dict "value" (include "mcp-messaging.text" $value)) (kindIs "map" $value)) -}}
{{- end -}}
{{- end -}}
{{- /* By name, each once: a name given twice fails an apply. A value may refer to names before it ($(NAME)); K, then O, then R. */ -}}
{{- range $n, $name := keys $env | sortAlpha }}
{{- if $n }}
{{ end -}}
- name: {{ $name }}
  {{- toYaml (get $env $name) | nindent 2 }}
{{- end }}
{{- end }}

{{/* Ports of Redis, as a JSON list: as said, or as the URLs say. */}}
{{- define "mcp-messaging.redisPorts" -}}
{{- $ports := list -}}
{{- if .Values.networkPolicy.redisPorts -}}
{{- range .Values.networkPolicy.redisPorts }}{{ $ports = append $ports (int .) }}{{ end -}}
{{- else if .Values.redis.enabled -}}
{{- $ports = list 6379 -}}
{{- else -}}
{{- $known := true -}}
{{- $urls := list .Values.redis.url -}}
{{- if .Values.migrate.enabled }}{{ $urls = append $urls (default .Values.redis.url .Values.migrate.redis.url) }}{{ end -}}
{{- range $urls -}}
{{- if not . }}{{ $known = false }}{{ end -}}
{{- /* Behind the credentials: host:port and node=host:port. */ -}}
{{- $hosts := regexReplaceAll "^[a-z-]+://(.*@)?" . "" -}}
{{- $found := regexFindAll ":[0-9]+" $hosts -1 -}}
{{- range $found }}{{ $ports = append $ports (trimPrefix ":" . | int) }}{{ end -}}
{{- if not $found }}{{ $ports = append $ports 6379 }}{{ end -}}
{{- /* A Sentinel only says where Redis is. */ -}}
{{- if contains "-sentinel://" . }}{{ $ports = append $ports 6379 }}{{ end -}}
{{- end -}}
{{- if not $known }}{{ $ports = concat $ports (list 6379 26379) }}{{ end -}}
{{- end -}}
{{- uniq $ports | toJson -}}
{{- end }}
