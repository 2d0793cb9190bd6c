"""Connections of HTTP clients that are cancelled in the middle of a TLS handshake.

httpcore closes one whose handshake fails, and forgets one whose handshake is cancelled: it stays open until
it is collected as garbage, with a warning.
"""

from __future__ import annotations

from typing import Any


def closing_half_open() -> dict[str, Any]:
    """The `extensions` of a request with httpx whose connection is closed whatever ends its handshake."""
    opened: list[Any] = []

    async def trace(event: str, info: dict[str, Any]) -> None:
        if event == "connection.connect_tcp.complete":
            opened.append(info["return_value"])
        elif event == "connection.start_tls.failed" and opened:
            await opened.pop().aclose()

    return {"trace": trace}
