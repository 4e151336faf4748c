{{- define "operator.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "operator.fullname" -}}
{{- $full := .Values.fullnameOverride -}}
{{- if not $full -}}
{{- $name := include "operator.name" . -}}
{{- $full = contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name) -}}
{{- end -}}
{{- $full = $full | trunc 50 | trimSuffix "-" -}}
{{- if not (regexMatch "^[a-z]([-a-z0-9]*[a-z0-9])?$" $full) -}}
{{- fail (printf "%q cannot be the name of a Service: set fullnameOverride to one of a-z, 0-9 and '-' that begins with a letter" $full) -}}
{{- end -}}
{{- $full -}}
{{- end -}}

{{- define "operator.selectorLabels" -}}
app.kubernetes.io/name: {{ include "operator.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "operator.labels" -}}
{{ include "operator.selectorLabels" . }}
app.kubernetes.io/component: operator
app.kubernetes.io/part-of: modelservice-operator
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "operator.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "operator.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "serviceAccount.name must name an existing account when serviceAccount.create is false" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- /* Name of cluster-wide objects: several teams may each have an operator for their own namespaces. */ -}}
{{- define "operator.clusterName" -}}
{{- include "operator.fullname" . -}}
{{- if .Values.watchNamespaces -}}-{{ .Release.Namespace }}{{- end -}}
{{- end -}}

{{- /* Reference of an image: (list ROOT IMAGE) → repository@digest or repository:tag. */ -}}
{{- define "operator.image" -}}
{{- $root := index . 0 -}}
{{- $image := index . 1 -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ default $root.Chart.AppVersion $image.tag }}
{{- end -}}
{{- end -}}

{{- /* Port of the OTLP endpoint: the URL's own, or its scheme's. */ -}}
{{- define "operator.otlpPort" -}}
{{- $url := urlParse .Values.otlpEndpoint -}}
{{- $port := regexFind ":[0-9]+$" $url.host | trimPrefix ":" -}}
{{- $port | default (eq $url.scheme "https" | ternary "443" "80") -}}
{{- end -}}

{{- /* The default AcceleratorClasses, as the list that --accelerator-classes reads; empty without any. */ -}}
{{- define "operator.acceleratorClasses" -}}
{{- $classes := list -}}
{{- if .Values.accelerators.cpu -}}
{{- $classes = append $classes (dict "name" "cpu" "spec" (dict "sharing" "Shared" "runtime" (dict "executionProvider" "CPUExecutionProvider"))) -}}
{{- end -}}
{{- with .Values.accelerators.openvino.image -}}
{{- $runtime := dict "image" . "executionProvider" "OpenVINOExecutionProvider" "options" (dict "device_type" "CPU") -}}
{{- $classes = append $classes (dict "name" "openvino" "spec" (dict "sharing" "Shared" "runtime" $runtime)) -}}
{{- end -}}
{{- with .Values.accelerators.nvidiaGpu.image -}}
{{- $runtime := dict "image" . "executionProvider" "CUDAExecutionProvider" -}}
{{- $resource := dict "name" "nvidia.com/gpu" "count" 1 -}}
{{- $tolerations := list (dict "key" "nvidia.com/gpu" "operator" "Exists" "effect" "NoSchedule") -}}
{{- $classes = append $classes (dict "name" "nvidia-gpu" "spec" (dict "sharing" "Exclusive" "resource" $resource "tolerations" $tolerations "runtime" $runtime)) -}}
{{- end -}}
{{- range concat $classes .Values.accelerators.extra }}
- apiVersion: serving.modelservice.dev/v1alpha1
  kind: AcceleratorClass
  metadata:
    name: {{ .name }}
  spec:
    {{- toYaml .spec | nindent 4 }}
{{- end -}}
{{- end -}}

{{- /* Rights on the objects that the operator watches and writes in the namespaces that it serves. */ -}}
{{- define "operator.serviceRules" -}}
- apiGroups: [serving.modelservice.dev]
  resources: [modelservices]
  verbs: [list, watch]
- apiGroups: [serving.modelservice.dev]
  resources: [modelservices/status]
  verbs: [patch]
# Child objects block the deletion of the ModelService that owns them; some clusters require this right for that.
- apiGroups: [serving.modelservice.dev]
  resources: [modelservices/finalizers]
  verbs: [update]
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [services]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [autoscaling]
  resources: [horizontalpodautoscalers]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
# From these, pods get claims of devices, if their AcceleratorClass asks for devices by DRA.
- apiGroups: [resource.k8s.io]
  resources: [resourceclaimtemplates]
  verbs: [get, list, watch, create, patch, delete]
# Which of several alternatives a pod got.
- apiGroups: [resource.k8s.io]
  resources: [resourceclaims]
  verbs: [get]
# The pod's status says why a server is not ready, so no right to read logs is needed. A pod whose device is lost is
# deleted, because a restarted container keeps its pod's device. A pod is created, and deleted once it has been read, to
# find which version of a model a new revision gets.
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch, create, delete]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end -}}

{{- /* CEL: the Secrets that a ModelService names, each followed by its use. No name of a Secret has a slash. */ -}}
{{- define "operator.namedSecrets" -}}
(has({{ . }}.spec.fetch) && has({{ . }}.spec.fetch.credentials) ? [{{ . }}.spec.fetch.credentials.secretName + '/fetch'] : [])
+ (has({{ . }}.spec.server) && has({{ . }}.spec.server.auth) ? [{{ . }}.spec.server.auth.tokenSecretName + '/auth'] : [])
+ (has({{ . }}.spec.pod) && has({{ . }}.spec.pod.imagePullSecrets) ? {{ . }}.spec.pod.imagePullSecrets.map(secret, secret.name + '/pull') : [])
+ (has({{ . }}.spec.pod) && has({{ . }}.spec.pod.env) ? {{ . }}.spec.pod.env.filter(variable, has(variable.valueFrom) && has(variable.valueFrom.secretKeyRef)).map(variable, variable.valueFrom.secretKeyRef.name + '/env/' + variable.name + '/' + variable.valueFrom.secretKeyRef.key) : [])
{{- end -}}

{{- /* CEL: the service account whose identity a ModelService uses, followed by the use. */ -}}
{{- define "operator.namedAccounts" -}}
(has({{ . }}.spec.pod) && has({{ . }}.spec.pod.serviceAccountName) ? [{{ . }}.spec.pod.serviceAccountName + '/pod'] : [])
+ (has({{ . }}.spec.fetch) && has({{ . }}.spec.fetch.identity) && {{ . }}.spec.fetch.identity == 'Pod' ?
[(has({{ . }}.spec.pod) && has({{ . }}.spec.pod.serviceAccountName) ? {{ . }}.spec.pod.serviceAccountName : 'default') + '/pod-identity'] : [])
{{- end -}}
