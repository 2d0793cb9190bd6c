"""Spans of Python processes: made by OpenTelemetry, sent to the control plane."""
