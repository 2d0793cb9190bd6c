"""Weft on Kubernetes: documents in, documents out. None but `in_cluster` talks to a cluster."""
