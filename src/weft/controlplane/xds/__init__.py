"""Serving configuration to sidecars: incremental xDS over one aggregated stream (ADS)."""
