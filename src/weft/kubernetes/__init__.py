"""Weft on Kubernetes: documents made of documents, and processes that keep cluster and mesh the same."""
