"""From declared resources and running instances to Envoy configuration: pure functions over values."""
