"""Declared resources in the store: applied whole or not at all, with optimistic concurrency."""
