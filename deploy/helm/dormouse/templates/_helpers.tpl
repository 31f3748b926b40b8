{{- define "dormouse.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Labels of an object. Call with (list $ "controller"); the component may be "". */}}
{{- define "dormouse.labels" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{ include "dormouse.selectorLabels" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
app.kubernetes.io/part-of: dormouse
{{- with $root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* What never changes in the life of a release. */}}
{{- define "dormouse.selectorLabels" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
app.kubernetes.io/name: {{ default $root.Chart.Name $root.Values.nameOverride }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
{{- with $component }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end -}}

{{/* The metadata of an object but for its name and namespace: labels, and annotations where there are any. */}}
{{- define "dormouse.metadata" -}}
{{- $root := index . 0 -}}
labels:
  {{- include "dormouse.labels" . | nindent 2 }}
{{- with $root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "dormouse.controller.name" -}}{{ include "dormouse.fullname" . }}-controller{{- end -}}
{{- define "dormouse.agent.name" -}}{{ include "dormouse.fullname" . }}-agent{{- end -}}

{{- define "dormouse.controller.serviceAccountName" -}}
{{- default (include "dormouse.controller.name" .) .Values.controller.serviceAccount.name -}}
{{- end -}}
{{- define "dormouse.agent.serviceAccountName" -}}
{{- default (include "dormouse.agent.name" .) .Values.agent.serviceAccount.name -}}
{{- end -}}

{{/* An image's reference. Call with (list $ .Values.controller.image). */}}
{{- define "dormouse.image" -}}
{{- $root := index . 0 -}}
{{- $image := index . 1 -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ default $root.Chart.AppVersion $image.tag }}
{{- end -}}
{{- end -}}

{{/* CEL, in a policy: the node that the agent's token is bound to, or "". */}}
{{- define "dormouse.agentNode" -}}
'authentication.kubernetes.io/node-name' in request.userInfo.extra ? request.userInfo.extra['authentication.kubernetes.io/node-name'][0] : ''
{{- end -}}

{{/* The metadata of what `helm test` makes, but for name and namespace. Call with (list $ 1): helm makes it in the order of
these weights, and deletes it when all tests have passed. */}}
{{- define "dormouse.test.metadata" -}}
{{- $root := index . 0 -}}
labels:
  {{- include "dormouse.labels" (list $root "test") | nindent 2 }}
annotations:
  helm.sh/hook: test
  helm.sh/hook-weight: {{ index . 1 | quote }}
  helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
  {{- with $root.Values.commonAnnotations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}
