"""Whether a Redis is one that keeps what it confirms."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from weft.errors import MeshError, Unavailable
from weft.messaging.brokers.redis_connection import RedisConnection

logger = logging.getLogger(__name__)

_OLDEST = 7


async def check_server(connection: RedisConnection) -> None:
    """Raise Unavailable for a Redis that is too old, and warn of one that may lose what it confirmed.

    For nothing to be lost with the process it needs `appendonly yes` and `appendfsync always`: with
    `everysec` it confirms writes before the file has them when its disk is slow. Nor may it throw away
    messages to make room: `maxmemory-policy noeviction`.
    """
    where = f"Redis at {connection.address}"
    known = _values(await connection.call("ask about the server", "INFO"))
    version = known.get("redis_version", "0")
    if int(version.partition(".")[0] or 0) < _OLDEST:
        raise Unavailable(f"{where} is version {version}: topics and queues need 7.0 or newer")
    if known.get("redis_mode", "standalone") == "cluster":
        raise Unavailable(f"{where} is a node of a cluster: name a server that holds all keys")
    if known.get("aof_enabled") == "0":
        logger.warning("%s writes no append-only file: what it confirms dies with it", where)
    elif await _setting(connection, "appendfsync") == "everysec":
        logger.warning("%s has `appendfsync everysec`: when it dies seconds may be lost", where)
    if known.get("maxmemory_policy", "noeviction") != "noeviction":
        logger.warning("%s has a maxmemory-policy other than noeviction: it throws messages away", where)


async def _setting(connection: RedisConnection, name: str) -> str:
    try:
        answer = await connection.call(f"ask for {name}", "CONFIG", "GET", name)
    except MeshError:
        return ""  # a managed Redis may keep its configuration to itself
    return answer[1].decode() if len(answer) == 2 else ""


def _values(info: bytes) -> Mapping[str, str]:
    pairs = (line.partition(":") for line in info.decode(errors="replace").splitlines())
    return {name: value for name, _, value in pairs}
