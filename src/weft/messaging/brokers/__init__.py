"""The brokers, each with its client library to itself."""
