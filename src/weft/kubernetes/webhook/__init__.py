"""The webhooks of an installation: what an API server asks before it takes a pod, or a custom resource."""
