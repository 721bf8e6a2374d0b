{{/* The release's name for one sink: a sink's name may hold _, Kubernetes' names may not. */}}
{{- define "tallybus.name" -}}
{{- $base := ternary .release (printf "%s-tallybus" .release) (contains "tallybus" .release) -}}
{{- printf "%s-%s" $base (.sink | replace "_" "-") | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* What selects one sink's pods; must never change. */}}
{{- define "tallybus.selector" -}}
app.kubernetes.io/name: tallybus
app.kubernetes.io/instance: {{ .release | quote }}
app.kubernetes.io/component: {{ .sink | replace "_" "-" | trunc 63 | trimSuffix "-" | quote }}
{{- end -}}

{{- define "tallybus.labels" -}}
{{ include "tallybus.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end -}}

{{/*
A value as TOML has it, on one line. toToml is of no use: values come as floating-point numbers, and it writes 12 as 12.0.
JSON's strings, numbers and booleans are TOML's too.
*/}}
{{- define "tallybus.toml" -}}
{{- if kindIs "map" . -}}
{ {{ range $index, $key := keys . | sortAlpha }}{{ if $index }}, {{ end }}{{ $key | toJson }} = {{ include "tallybus.toml" (get $ $key) }}{{ end }} }
{{- else if kindIs "slice" . -}}
[{{ range $index, $item := . }}{{ if $index }}, {{ end }}{{ include "tallybus.toml" $item }}{{ end }}]
{{- else -}}
{{ . | toJson }}
{{- end -}}
{{- end -}}

{{/* A table's lines. */}}
{{- define "tallybus.table" -}}
{{- range $key := keys . | sortAlpha }}
{{- if not (kindIs "invalid" (get $ $key)) }}
{{ $key | toJson }} = {{ include "tallybus.toml" (get $ $key) }}
{{- end }}
{{- end }}
{{- end -}}

{{/* The settings file of one sink's workers: the bus, and this sink alone, so that they need no other secrets. */}}
{{- define "tallybus.settings" -}}
[bus]
{{- include "tallybus.table" .root.Values.bus }}

[sinks.{{ .sink }}]
{{- include "tallybus.table" .with.settings }}
{{- if .root.Values.monitoring.enabled }}

[status]
listen = "0.0.0.0:{{ .root.Values.monitoring.port | int }}"
token = "env:TALLYBUS_STATUS_TOKEN"
{{- end }}
{{ end -}}

{{/* What must not be, beyond what the schema can say. */}}
{{- define "tallybus.check" -}}
{{- if not .root.Values.bus.brokers -}}
  {{- fail "bus.brokers is empty: give host:port, several separated by commas" -}}
{{- end -}}
{{- $monitoring := .root.Values.monitoring -}}
{{- if and $monitoring.enabled (not $monitoring.tokenSecret.name) -}}
  {{- fail "monitoring.tokenSecret.name is empty: name the secret with the token that /metrics and /status demand" -}}
{{- end -}}
{{- if and $monitoring.serviceMonitor.enabled (not $monitoring.enabled) -}}
  {{- fail "monitoring.serviceMonitor needs monitoring.enabled: without it the workers listen on nothing" -}}
{{- end -}}
{{- if and $monitoring.prometheusRule.enabled (not $monitoring.enabled) -}}
  {{- fail "monitoring.prometheusRule needs monitoring.enabled: without it there are no metrics that the rules could be about" -}}
{{- end -}}
{{- $sink := .sink -}}
{{- $with := .with -}}
{{- $partitions := .root.Values.bus.partitions | int -}}
{{- if eq $with.autoscaling.type "none" -}}
  {{- if gt ($with.replicas | int) $partitions -}}
    {{- fail (printf "sinks.%s.replicas is %d, but the topic has %d partitions (bus.partitions): the others would idle" $sink ($with.replicas | int) $partitions) -}}
  {{- end -}}
{{- else -}}
  {{- if gt ($with.autoscaling.maxReplicas | int) $partitions -}}
    {{- fail (printf "sinks.%s.autoscaling.maxReplicas is %d, but the topic has %d partitions (bus.partitions): the others would idle" $sink ($with.autoscaling.maxReplicas | int) $partitions) -}}
  {{- end -}}
  {{- if gt ($with.autoscaling.minReplicas | int) ($with.autoscaling.maxReplicas | int) -}}
    {{- fail (printf "sinks.%s.autoscaling: minReplicas is more than maxReplicas" $sink) -}}
  {{- end -}}
{{- end -}}
{{- $settings := include "tallybus.settings" . -}}
{{- $variables := keys .secretEnv -}}
{{- range $with.env -}}{{- $variables = append $variables .name -}}{{- end -}}
{{- range regexFindAll "\"env:[^\"]*\"" $settings -1 -}}
  {{- $name := . | trimPrefix "\"env:" | trimSuffix "\"" -}}
  {{- if not (has $name $variables) -}}
    {{- fail (printf "sinks.%s: the settings name env:%s, which neither secretEnv, busSecretEnv nor env gives" $sink $name) -}}
  {{- end -}}
{{- end -}}
{{- $files := keys .secretFiles -}}
{{- range regexFindAll "\"file:/run/secrets/tallybus/[^\"]*\"" $settings -1 -}}
  {{- $name := . | trimPrefix "\"file:/run/secrets/tallybus/" | trimSuffix "\"" -}}
  {{- if not (has $name $files) -}}
    {{- fail (printf "sinks.%s: the settings name file:/run/secrets/tallybus/%s, which neither secretFiles nor busSecretFiles gives" $sink $name) -}}
  {{- end -}}
{{- end -}}
{{- range $table := list .root.Values.bus.kafka $with.settings -}}
  {{- range $key, $value := $table -}}
    {{- if and (regexMatch "(^|[._])(password|secret|token|secret_key|api_key)$" $key) (kindIs "string" $value) (not (regexMatch "^(env|file):" $value)) -}}
      {{- fail (printf "sinks.%s: %s stands in the values as it is: give env:NAME or file:PATH, and the secret by secretEnv or secretFiles" $sink $key) -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- end -}}

{{/*
What a template needs of one sink, as JSON: its name, its values laid over the defaults, and its secrets with those of the bus.
Called with a dict of root and sink; a template merges the answer into it.
*/}}
{{- define "tallybus.sink" -}}
{{- $with := mergeOverwrite (deepCopy .root.Values.defaults) (deepCopy (get .root.Values.sinks .sink)) -}}
{{- $monitoring := .root.Values.monitoring -}}
{{- $token := ternary (dict "TALLYBUS_STATUS_TOKEN" $monitoring.tokenSecret) (dict) $monitoring.enabled -}}
{{- dict "release" .root.Release.Name "with" $with
  "secretEnv" (merge (dict) $with.secretEnv .root.Values.busSecretEnv $token)
  "secretFiles" (merge (dict) $with.secretFiles .root.Values.busSecretFiles) | toJson -}}
{{- end -}}

{{- define "tallybus.serviceAccount" -}}
{{- if .with.serviceAccount.create -}}
{{- default (include "tallybus.name" .) .with.serviceAccount.name -}}
{{- else -}}
{{- default "default" .with.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "tallybus.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}{{ .repository }}@{{ .digest }}{{- else -}}{{ .repository }}:{{ default $.Chart.AppVersion .tag }}{{- end -}}
{{- end -}}
{{- end -}}

{{/* Rights of a container: none. */}}
{{- define "tallybus.confined" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: { drop: [ALL] }
{{- end -}}

{{/* What the worker's container and the doctor's have in common. */}}
{{- define "tallybus.container" -}}
securityContext:
  {{- include "tallybus.confined" . | nindent 2 }}
resources: {{- toYaml .with.resources | nindent 2 }}
env:
  {{- if .with.logFilter }}
  - name: TALLYBUS_LOG
    value: {{ .with.logFilter | quote }}
  {{- end }}
  {{- range $name := keys .secretEnv | sortAlpha }}
  {{- $from := get $.secretEnv $name }}
  - name: {{ $name }}
    valueFrom:
      secretKeyRef: { name: {{ $from.name }}, key: {{ $from.key | quote }} }
  {{- end }}
  {{- with .with.env }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
volumeMounts:
  - { name: settings, mountPath: /etc/tallybus, readOnly: true }
  - { name: run, mountPath: /run/tallybus }
  {{- if .secretFiles }}
  - { name: secrets, mountPath: /run/secrets/tallybus, readOnly: true }
  {{- end }}
  {{- with .with.volumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{/* Every change of their number makes the group rebalance: few steps, and slowly down. */}}
{{- define "tallybus.behavior" -}}
scaleUp:
  stabilizationWindowSeconds: 30
  policies: [{ type: Pods, value: 2, periodSeconds: 60 }]
scaleDown:
  stabilizationWindowSeconds: 600
  policies: [{ type: Pods, value: 1, periodSeconds: 120 }]
{{- end -}}

{{/*
Seconds of lag: unsettled messages, divided by the rate at which messages came in over the last five minutes, which is how old
the oldest unsettled one is if that rate was steady. The metrics are kafka_exporter's.
*/}}
{{- define "tallybus.query" -}}
{{- if .with.autoscaling.keda.query -}}
{{- tpl .with.autoscaling.keda.query (merge (dict "sink" .sink) .root) -}}
{{- else -}}
{{- $topics := join "|" .topics | replace "." "\\." | replace "\\" "\\\\" -}}
sum(kafka_consumergroup_lag{consumergroup="tallybus.{{ .sink }}",topic=~"{{ $topics }}"}) / clamp_min(sum(rate(kafka_topic_partition_current_offset{topic=~"{{ $topics }}"}[5m])), 1)
{{- end -}}
{{- end -}}
