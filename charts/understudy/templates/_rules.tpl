{{/* What the operator may do to the objects of a namespace that it looks after. Tests hold what it asks for against this. */}}
{{- define "understudy.rules" -}}
# patch: the finalizer that carries its deletionPolicy to its shards.
- apiGroups: [understudy.dev]
  resources: [datastores]
  verbs: [get, list, watch, patch]
# Made from a Datastore, and deleted by people or with it.
- apiGroups: [understudy.dev]
  resources: [shards, consumers]
  verbs: [get, list, watch, create, patch]
- apiGroups: [understudy.dev]
  resources: [replicas]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [understudy.dev]
  resources: [failovers]
  verbs: [get, list, watch, create, delete]
# update: over the version that was read; patch: of an object that does not parse.
- apiGroups: [understudy.dev]
  resources: [datastores/status, shards/status, replicas/status]
  verbs: [update, patch]
# As consumers have it for their own.
- apiGroups: [understudy.dev]
  resources: [consumers/status]
  verbs: [get, patch]
- apiGroups: [understudy.dev]
  resources: [failovers/status]
  verbs: [update]
# To be named as an owner that waits for what it owns, where that is asked for.
- apiGroups: [understudy.dev]
  resources: [datastores/finalizers, shards/finalizers, replicas/finalizers, consumers/finalizers]
  verbs: [update]
- apiGroups: [""]
  resources: [pods, persistentvolumeclaims]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [services]
  verbs: [get, list, watch, create, patch, delete]
# Only by name: what it made itself, and what a spec refers to.
- apiGroups: [""]
  resources: [secrets, configmaps, serviceaccounts]
  verbs: [get, create, patch]
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
# Roles of consumers and query: what they grant is granted here too, so neither escalate nor bind is needed. Those that are not
# needed any more are deleted by the garbage collector.
- apiGroups: [rbac.authorization.k8s.io]
  resources: [roles, rolebindings]
  verbs: [get, create, patch]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end }}
