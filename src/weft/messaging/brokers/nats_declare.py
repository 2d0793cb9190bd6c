"""Making, changing and removing streams and consumers."""

from __future__ import annotations

import logging
from contextlib import suppress

from weft.errors import NotFound
from weft.messaging.brokers.nats_api import JetStreamApi, Refused
from weft.messaging.brokers.nats_streams import Config, changed
from weft.store.nats_copies import copied

logger = logging.getLogger(__name__)

_OPERATORS = ("num_replicas", "storage")
"""What an operator may have changed about a stream stays as it is, but that it gets more copies."""

_ONCE = ("deliver_policy", "opt_start_seq", "opt_start_time")
"""What a consumer is made with, and keeps."""


async def declare_stream(api: JetStreamApi, what: str, config: Config) -> None:
    """Have a stream, or change it. Raises Refused, Unavailable or Denied.

    If more copies of one that is there are not to be had now, it is kept with those it has.
    """
    name = config["name"]
    try:
        there = (await api.ask(what, f"STREAM.INFO.{name}"))["config"]
    except NotFound:
        await api.ask(what, f"STREAM.CREATE.{name}", config)
        return
    other = changed(there, config, _OPERATORS)
    if other is not None:
        await api.ask(what, f"STREAM.UPDATE.{name}", other)
    if there["num_replicas"] < config["num_replicas"]:
        await _copy(api, what, other or there, config["num_replicas"])


async def declare_consumer(api: JetStreamApi, what: str, stream: str, config: Config) -> None:
    """Have a consumer, or change all but where it started. Raises Refused, NotFound, Unavailable, Denied."""
    name = config["name"]
    try:
        there = (await api.ask(what, f"CONSUMER.INFO.{stream}.{name}"))["config"]
    except NotFound:
        wanted = config
    else:
        other = changed(there, config, _ONCE)
        if other is None:
            return
        wanted = other
    await api.ask(what, f"CONSUMER.CREATE.{stream}.{name}", {"stream_name": stream, "config": wanted})


async def remove_stream(api: JetStreamApi, what: str, stream: str) -> None:
    """Remove a stream with all it holds; a missing one is no error."""
    with suppress(NotFound):
        await api.ask(what, f"STREAM.DELETE.{stream}")


async def remove_consumer(api: JetStreamApi, what: str, stream: str, consumer: str) -> None:
    """Remove a consumer; a missing one is no error."""
    with suppress(NotFound):
        await api.ask(what, f"CONSUMER.DELETE.{stream}.{consumer}")


async def _copy(api: JetStreamApi, what: str, there: Config, replicas: int) -> None:
    """Have a stream that is `there` kept by so many servers."""
    name = there["name"]
    try:
        await api.ask(what, f"STREAM.UPDATE.{name}", {**there, "num_replicas": replicas})
    except Refused as error:
        # It works as it is; servers for the other copies may be away, or still to come.
        logger.warning(
            "stream %s is kept by %d NATS servers, not yet by %d: %s",
            *(name, there["num_replicas"], replicas, error.detail),
        )
    else:
        await copied(api.connection, name)
