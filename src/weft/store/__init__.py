"""Typed buckets with leases: NATS JetStream KV, and an in-memory twin that passes the same tests."""
