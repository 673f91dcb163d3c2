{{/* The name of all objects: the release's, with the chart's if it lacks that. */}}
{{- define "flux-recv.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Of objects that belong to no namespace: two releases of one name may live in two namespaces. */}}
{{- define "flux-recv.clusterName" -}}
{{- printf "%s-%s" .Release.Namespace (include "flux-recv.fullname" .) | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "flux-recv.serviceAccount" -}}
{{- default (include "flux-recv.fullname" .) .Values.serviceAccount.name -}}
{{- end -}}

{{- define "flux-recv.selector" -}}
app.kubernetes.io/name: flux-recv
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "flux-recv.labels" -}}
{{ include "flux-recv.selector" . }}
app.kubernetes.io/part-of: flux
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* metadata of an object in the release's namespace. */}}
{{- define "flux-recv.metadata" -}}
namespace: {{ .Release.Namespace }}
labels:
  {{- include "flux-recv.labels" . | nindent 2 }}
{{- with .Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "flux-recv.image" -}}
{{- $repository := .Values.image.repository -}}
{{- with .Values.global.imageRegistry -}}
{{- $repository = printf "%s/%s" . (regexReplaceAll "^[^/]*[.:][^/]*/" $.Values.image.repository "") -}}
{{- end -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" $repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" $repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{- define "flux-recv.hasNats" -}}
{{- with .Values.config.publish }}{{ if .nats }}true{{ end }}{{ end -}}
{{- end -}}

{{- define "flux-recv.hasClaim" -}}
{{- if or .Values.volumeClaim.enabled (and .Values.publisher.enabled (not (include "flux-recv.hasNats" .))) }}true{{ end -}}
{{- end -}}

{{- define "flux-recv.takesWebhooks" -}}
{{- if or (not .Values.subscriber.enabled) .Values.subscriber.takesWebhooks }}true{{ end -}}
{{- end -}}

{{/* Says what does not fit together. */}}
{{- define "flux-recv.check" -}}
{{- $config := .Values.config -}}
{{- if and .Values.publisher.enabled (not $config.publish) -}}
{{- fail "publisher.enabled adds what `publish` needs, and `config` has no `publish`; add it, or set publisher.enabled to false" -}}
{{- end -}}
{{- if and $config.publish (not .Values.publisher.enabled) -}}
{{- fail "`config` has `publish`, which needs a port and a Service for subscribers; set publisher.enabled to true" -}}
{{- end -}}
{{- if and .Values.volumeClaim.enabled (include "flux-recv.hasNats" .) -}}
{{- fail "volumeClaim.enabled keeps one journal on one volume, and with `publish.nats` there are more replicas; set it to false" -}}
{{- end -}}
{{- if and .Values.subscriber.enabled (not $config.subscribe) -}}
{{- fail "subscriber.enabled adds a token for `subscribe`, and `config` has no `subscribe`; add it, or set subscriber.enabled to false" -}}
{{- end -}}
{{- if and .Values.existingSecret .Values.keys -}}
{{- fail "existingSecret and keys are both set; keys are read from one of them" -}}
{{- end -}}
{{- if and $config.endpoints .Values.subscriber.enabled (not .Values.subscriber.takesWebhooks) -}}
{{- fail "`config` has `endpoints` beside `subscribe`, and nothing would take their webhooks; set subscriber.takesWebhooks to true" -}}
{{- end -}}
{{- if and .Values.ingress.enabled (not .Values.ingress.host) -}}
{{- fail "ingress.enabled needs ingress.host" -}}
{{- end -}}
{{- if and .Values.httpRoute.enabled (not .Values.httpRoute.parentRefs) -}}
{{- fail "httpRoute.enabled needs httpRoute.parentRefs: the Gateway that it belongs to" -}}
{{- end -}}
{{- end -}}
