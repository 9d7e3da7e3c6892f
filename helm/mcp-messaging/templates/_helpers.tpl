{{/* Names */}}

{{- define "mcp-messaging.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end }}

{{/* At most 46 characters: the longest suffix, -test-round-trip, still fits into 63. */}}
{{- define "mcp-messaging.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 46 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "mcp-messaging.name" . -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 46 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 46 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "mcp-messaging.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "mcp-messaging.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end }}

{{/* The same for hooks that run before there is one. */}}
{{- define "mcp-messaging.migrateAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- include "mcp-messaging.fullname" . }}-migrate
{{- else -}}
{{- include "mcp-messaging.serviceAccountName" . -}}
{{- end -}}
{{- end }}

{{/* The Secret with the master keys, the team's or the chart's. */}}
{{- define "mcp-messaging.masterKeys" -}}
{{- default (printf "%s-master-keys" (include "mcp-messaging.fullname" .)) .Values.auth.existingSecret -}}
{{- end }}

{{/* Whether the master keys are in a file that somebody else brings (config.auth.master_keys_file and extraVolumes). */}}
{{- define "mcp-messaging.masterKeysFile" -}}
{{- if eq .Values.auth.mode "key" }}{{ dig "auth" "master_keys_file" "" .Values.config }}{{ end -}}
{{- end }}

{{/* "true": nobody brings master keys. */}}
{{- define "mcp-messaging.makesMasterKey" -}}
{{- and (eq .Values.auth.mode "key") (not .Values.auth.existingSecret) (not (include "mcp-messaging.masterKeysFile" .)) -}}
{{- end }}

{{/* What the endpoint speaks. */}}
{{- define "mcp-messaging.scheme" -}}
{{- if dig "http" "tls_certificate_file" "" .Values.config }}https{{ else }}http{{ end -}}
{{- end }}

{{/* Call with (dict "root" $ "component" "server"): what a selector may name. */}}
{{- define "mcp-messaging.selector" -}}
app.kubernetes.io/name: {{ include "mcp-messaging.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* Call with (dict "root" $ "component" "server" "more" (dict)): all labels. What selectors name wins. */}}
{{- define "mcp-messaging.labels" -}}
{{- $own := include "mcp-messaging.selector" . | fromYaml -}}
{{- $_ := set $own "helm.sh/chart" (printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_") -}}
{{- $_ := set $own "app.kubernetes.io/version" (.root.Chart.AppVersion | toString) -}}
{{- $_ := set $own "app.kubernetes.io/part-of" "mcp-messaging" -}}
{{- $_ := set $own "app.kubernetes.io/managed-by" .root.Release.Service -}}
{{- toYaml (merge $own (default dict .more) .root.Values.commonLabels) -}}
{{- end }}

{{/* Call with (dict "root" $ "component" "server" "name" "x" "labels" (dict) "annotations" (dict)): all metadata. */}}
{{- define "mcp-messaging.metadata" -}}
name: {{ .name }}
namespace: {{ default .root.Release.Namespace .namespace }}
labels:
  {{- include "mcp-messaging.labels" (dict "root" .root "component" .component "more" .labels) | nindent 2 }}
{{- with merge (dict) (default dict .annotations) .root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Call with (dict "image" .Values.image "tag" "default"). */}}
{{- define "mcp-messaging.image" -}}
{{- with .image.registry }}{{ trimSuffix "/" . }}/{{ end -}}
{{- .image.repository -}}
{{- if .image.digest }}@{{ .image.digest }}{{ else }}:{{ default .tag .image.tag }}{{ end -}}
{{- end }}

{{/* Names that agents use: host, and those of ingress and route. A JSON list. */}}
{{- define "mcp-messaging.publicNames" -}}
{{- $names := list -}}
{{- with .Values.host }}{{ $names = append $names . }}{{ end -}}
{{- if .Values.ingress.enabled }}{{ $names = concat $names .Values.ingress.hosts }}{{ end -}}
{{- if .Values.httpRoute.enabled }}{{ $names = concat $names .Values.httpRoute.hostnames }}{{ end -}}
{{- uniq $names | toJson -}}
{{- end }}

{{/* The longest call that a proxy must hold, with half a minute to spare. */}}
{{- define "mcp-messaging.callSeconds" -}}
{{- add (int (dig "limits" "max_wait_seconds" 300 .Values.config)) 30 -}}
{{- end }}
