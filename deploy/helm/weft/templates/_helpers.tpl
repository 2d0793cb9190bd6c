{{/* The image that everything runs from. */}}
{{- define "weft.image" -}}
{{- $image := .Values.image -}}
{{- with $image.registry }}{{ . }}/{{ end }}{{ $image.repository }}
{{- if $image.digest }}@{{ $image.digest }}{{ else }}:{{ $image.tag | default .Chart.AppVersion }}{{ end }}
{{- end -}}

{{/* The host name of a part's Service: (list $ "control"). */}}
{{- define "weft.host" -}}
{{- $root := index . 0 -}}
{{ $root.Release.Name }}-{{ index . 1 }}.{{ $root.Release.Namespace }}.svc
{{- end -}}

{{/* URL of the control plane's API. */}}
{{- define "weft.api" -}}
https://{{ include "weft.host" (list . "control") }}:7400
{{- end -}}

{{/* Where its xDS is. */}}
{{- define "weft.xds" -}}
{{ include "weft.host" (list . "control") }}:7401
{{- end -}}

{{/* URL of NATS: of any of the servers. */}}
{{- define "weft.nats" -}}
tls://{{ include "weft.host" (list . "nats") }}:4222
{{- end -}}

{{/* The labels that never change of a part's pods: (list $ "control"). */}}
{{- define "weft.selectorLabels" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: weft
app.kubernetes.io/instance: {{ $root.Release.Name | quote }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* The labels of everything of a part: (list $ "control"). */}}
{{- define "weft.labels" -}}
{{- $root := index . 0 -}}
{{ include "weft.selectorLabels" . }}
app.kubernetes.io/part-of: weft
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
{{- end -}}

{{/* The metadata of an object in the release's namespace: (list $ "control"), with its name where that is another. */}}
{{- define "weft.metadata" -}}
{{- $root := index . 0 -}}
name: {{ include "weft.name" . | quote }}
namespace: {{ $root.Release.Namespace | quote }}
labels:
  {{- include "weft.labels" . | nindent 2 }}
{{- end -}}

{{/* The metadata of an object that belongs to no namespace; the same way. */}}
{{- define "weft.clusterMetadata" -}}
name: {{ include "weft.name" . | quote }}
labels:
  {{- include "weft.labels" . | nindent 2 }}
{{- end -}}

{{- define "weft.name" -}}
{{- $root := index . 0 -}}
{{- if gt (len .) 2 }}{{ index . 2 }}{{ else }}{{ $root.Release.Name }}-{{ index . 1 }}{{ end -}}
{{- end -}}

{{/* As whom a part's pods come: (list $ "control"). Whether they get its token is said by the pods. */}}
{{- define "weft.serviceAccount" -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  {{- include "weft.metadata" . | nindent 2 }}
automountServiceAccountToken: false
{{- end -}}

{{/* A Role or ClusterRole of a part's name is the part's: (list $ "control" "Role"), with its name where that is another. */}}
{{- define "weft.roleRef" -}}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: {{ index . 2 }}
  name: {{ include "weft.roleName" . }}
subjects:
  {{- include "weft.subject" . | nindent 2 }}
{{- end -}}

{{- define "weft.roleName" -}}
{{- $root := index . 0 -}}
{{- if gt (len .) 3 }}{{ index . 3 }}{{ else }}{{ $root.Release.Name }}-{{ index . 1 }}{{ end -}}
{{- end -}}

{{/* A part's account, to which something is granted. */}}
{{- define "weft.subject" -}}
{{- $root := index . 0 -}}
- kind: ServiceAccount
  name: {{ $root.Release.Name }}-{{ index . 1 }}
  namespace: {{ $root.Release.Namespace | quote }}
{{- end -}}

{{/* One pod at a time may be taken away by whoever drains a node: (list $ "control"). */}}
{{- define "weft.podDisruptionBudget" -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  {{- include "weft.metadata" . | nindent 2 }}
spec:
  maxUnavailable: 1
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "weft.selectorLabels" . | nindent 6 }}
{{- end -}}

{{/* How a Deployment gets new pods. One that needs a node of its own may find none before another has gone. */}}
{{- define "weft.strategy" -}}
type: RollingUpdate
rollingUpdate:
  {{- if eq .Values.antiAffinity "required" }}
  maxSurge: 0
  maxUnavailable: 1
  {{- else }}
  maxSurge: 1
  maxUnavailable: 0
  {{- end }}
{{- end -}}

{{/* Pods of a part that should not, or must not, be on one node; and rather not in one zone: (list $ "control"). */}}
{{- define "weft.affinity" -}}
{{- $root := index . 0 -}}
podAntiAffinity:
  {{- if eq $root.Values.antiAffinity "required" }}
  requiredDuringSchedulingIgnoredDuringExecution:
    - topologyKey: kubernetes.io/hostname
      labelSelector:
        matchLabels:
          {{- include "weft.selectorLabels" . | nindent 10 }}
  {{- end }}
  preferredDuringSchedulingIgnoredDuringExecution:
    {{- if eq $root.Values.antiAffinity "preferred" }}
    - weight: 100
      podAffinityTerm:
        topologyKey: kubernetes.io/hostname
        labelSelector:
          matchLabels:
            {{- include "weft.selectorLabels" . | nindent 12 }}
    {{- end }}
    - weight: 50
      podAffinityTerm:
        topologyKey: topology.kubernetes.io/zone
        labelSelector:
          matchLabels:
            {{- include "weft.selectorLabels" . | nindent 12 }}
{{- end -}}

{{/* What all pods have in common: nobody's user, which may do nothing, on the nodes that were asked for. */}}
{{- define "weft.pod" -}}
# Variables of all Services of the namespace: nobody reads them.
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . | quote }}
  {{- end }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- end -}}

{{/* What all containers have in common: what `restricted` allows, and nothing to write to but their mounts. */}}
{{- define "weft.container" -}}
image: {{ include "weft.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  capabilities:
    drop:
      - ALL
  privileged: false
  readOnlyRootFilesystem: true
{{- end -}}

{{/* A quantity as text: `2` is a number where somebody writes it so, which is not to become 2e+09. */}}
{{- define "weft.quantity" -}}
{{- if kindIs "string" . }}{{ . | quote }}{{ else }}{{ int64 . | quote }}{{ end -}}
{{- end -}}

{{/* What a container gets. */}}
{{- define "weft.resources" -}}
{{- $resources := . -}}
{{- range $kind := list "requests" "limits" }}
{{- $amounts := index $resources $kind }}
{{ $kind }}:
  cpu: {{ include "weft.quantity" $amounts.cpu }}
  memory: {{ include "weft.quantity" $amounts.memory }}
{{- end }}
{{- end -}}

{{/* What parts that make sidecars are told of them: the same options as `weft inject` has. */}}
{{- define "weft.injectionFlags" -}}
- {{ printf "--image=%s" (include "weft.image" .) | quote }}
- --trust-domain={{ .Values.trustDomain }}
- --roots={{ .Release.Name }}-roots
- --api={{ include "weft.api" . }}
- --xds={{ include "weft.xds" . }}
- --nats={{ include "weft.nats" . }}
{{- end -}}

{{/* The host name of each NATS server, as a JSON list. */}}
{{- define "weft.natsHosts" -}}
{{- $hosts := list -}}
{{- range until (int .Values.nats.replicas) -}}
{{- $hosts = append $hosts (printf "%s-nats-%d.%s" $.Release.Name . (include "weft.host" (list $ "nats"))) -}}
{{- end -}}
{{ $hosts | toJson }}
{{- end -}}

{{/* Where every container may write. */}}
{{- define "weft.tmpVolume" -}}
- name: tmp
  emptyDir:
    medium: Memory
    sizeLimit: 16Mi
{{- end -}}

{{/* The annotations by which Prometheus usually finds pods: (list $ 7405). */}}
{{- define "weft.scraped" -}}
{{- $root := index . 0 -}}
{{- if $root.Values.monitoring.annotations -}}
prometheus.io/scrape: "true"
prometheus.io/port: {{ index . 1 | quote }}
prometheus.io/path: /metrics
{{- end -}}
{{- end -}}

{{/* What a pod is called and where it is, as variables. */}}
{{- define "weft.podFields" -}}
- name: POD_NAME
  valueFrom:
    fieldRef:
      apiVersion: v1
      fieldPath: metadata.name
- name: POD_NAMESPACE
  valueFrom:
    fieldRef:
      apiVersion: v1
      fieldPath: metadata.namespace
- name: POD_IP
  valueFrom:
    fieldRef:
      apiVersion: v1
      fieldPath: status.podIP
{{- end -}}

{{/* The mesh's roots: a pod waits until they are there, unless it can begin without: (dict "root" $ "optional" true). */}}
{{- define "weft.rootsVolume" -}}
- name: trust
  configMap:
    name: {{ .root.Release.Name }}-roots
    items:
      - key: roots.pem
        path: roots.pem
    {{- if .optional }}
    optional: true
    {{- end }}
{{- end -}}

{{/* A volume with values of a Secret, with all if no keys are named: (dict "name" "keys" "secret" ... "keys" (list ...)). */}}
{{- define "weft.secretVolume" -}}
- name: {{ .name }}
  secret:
    secretName: {{ .secret | quote }}
    defaultMode: 0440
    {{- with .keys }}
    items:
      {{- range . }}
      - key: {{ . }}
        path: {{ . }}
      {{- end }}
    {{- end }}
{{- end -}}

{{/* The three probes of a container, which has `start` seconds until it first answers. */}}
{{- define "weft.probes" -}}
startupProbe:
  {{- include "weft.httpGet" (list . .live) | nindent 2 }}
  periodSeconds: 2
  failureThreshold: {{ div (.start | default 120) 2 }}
readinessProbe:
  {{- include "weft.httpGet" (list . .ready) | nindent 2 }}
  periodSeconds: 5
  failureThreshold: 2
livenessProbe:
  {{- include "weft.httpGet" (list . .live) | nindent 2 }}
  periodSeconds: 10
  failureThreshold: 6
{{- end -}}

{{- define "weft.httpGet" -}}
{{- $probes := index . 0 -}}
httpGet:
  path: {{ index . 1 }}
  port: {{ $probes.port }}
  scheme: {{ $probes.scheme | default "HTTP" }}
timeoutSeconds: 5
{{- end -}}

{{/* A container goes on serving for a moment after its pod was taken out of its Service. */}}
{{- define "weft.leave" -}}
lifecycle:
  preStop:
    exec:
      command: ["/bin/sh", "-c", "sleep 5"]
{{- end -}}
