{{/* What all pods of the server's image share. */}}
{{- define "mcp-messaging.podBasics" -}}
automountServiceAccountToken: false
# A Service named mcp-server would otherwise set MCP_SERVER_PORT to tcp://...
enableServiceLinks: false
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
securityContext:
  {{- toYaml .Values.podSecurityContext | nindent 2 }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Mounts and volumes of configuration and trust; call the second with (dict "root" $ "config" "name of the ConfigMap"). */}}
{{- define "mcp-messaging.mounts" -}}
- name: config
  mountPath: /etc/mcp-messaging/config
  readOnly: true
{{ include "mcp-messaging.caMount" . }}
{{- end }}

{{- define "mcp-messaging.volumes" -}}
- name: config
  configMap:
    name: {{ .config }}
{{ include "mcp-messaging.caVolume" .root }}
{{- end }}

{{- define "mcp-messaging.caMount" -}}
{{- if .Values.redis.caSecret -}}
- name: ca
  mountPath: /etc/mcp-messaging/ca
  readOnly: true
{{- end }}
{{- end }}

{{- define "mcp-messaging.caVolume" -}}
{{- with .Values.redis }}
{{- if .caSecret -}}
- name: ca
  secret:
    secretName: {{ .caSecret }}
    items:
      - key: {{ .caKey }}
        path: ca.crt
{{- end }}
{{- end }}
{{- end }}
