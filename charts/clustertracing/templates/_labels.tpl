{{/* Labels of every object; call with the root context. */}}
{{- define "clustertracing.labels" -}}
app.kubernetes.io/name: clustertracing
app.kubernetes.io/part-of: clustertracing
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "clustertracing.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}
