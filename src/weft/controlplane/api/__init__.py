"""The control plane's HTTP API: resources, instances and sidecars, as JSON."""
