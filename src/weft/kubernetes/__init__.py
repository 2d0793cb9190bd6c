"""Weft on Kubernetes: documents in, documents out. Nothing here talks to a cluster."""
