"""Typed buckets with leases: NATS JetStream KV, and an in-memory twin that passes the same tests."""

import sys


def _load_nats() -> None:
    """Import NATS's client without what it speaks WebSocket with.

    Weft connects by TCP only, and aiohttp would be a quarter of a sidecar's start, and 10 MB of its memory.
    """
    if "aiohttp" in sys.modules:
        return
    sys.modules["aiohttp"] = None  # type: ignore[assignment]  # "not there", as the import system has it
    try:
        import nats.aio.transport  # noqa: F401, PLC0415
    finally:
        del sys.modules["aiohttp"]


_load_nats()
