"""Having a stream: it is made where it is not there, and gets more copies where it has too few.

And what it says when it takes a message.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

import nats.js.errors
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import StreamConfig
from pydantic_core import from_json

logger = logging.getLogger(__name__)

_OTHER_CONFIGURATION = 10058


async def have(jetstream: JetStreamContext, config: StreamConfig) -> None:
    """See that there is a stream of that name, with as many copies at least. Raises nats-py's errors.

    Of one that is there all else stays as it is. If more copies are not to be had now, it is kept with those
    it has.
    """
    # Asked first: an agent's identity may use a stream, and may not make one.
    try:
        found = await jetstream.stream_info(config.name or "")
    except nats.js.errors.NotFoundError:
        await _make(jetstream, config)
        return
    if (found.config.num_replicas or 1) < (config.num_replicas or 1):
        await _copy(jetstream, found.config, config.num_replicas or 1)


async def have_all(jetstream: JetStreamContext, configs: Iterable[StreamConfig]) -> None:
    """See that there are all of them. Raises nats-py's errors."""
    for each in tuple(configs):
        await have(jetstream, each)


async def _make(jetstream: JetStreamContext, config: StreamConfig) -> None:
    try:
        await jetstream.add_stream(config)
    except nats.js.errors.BadRequestError as error:
        # An operator may have changed it, to have more replicas, say: it is taken as it is.
        if error.err_code != _OTHER_CONFIGURATION:
            raise


async def _copy(jetstream: JetStreamContext, there: StreamConfig, replicas: int) -> None:
    """Have a stream that is `there` kept by so many servers."""
    try:
        await jetstream.update_stream(there, num_replicas=replicas)
    except nats.js.errors.APIError as error:
        # It works as it is; servers for the other copies may be away, or still to come.
        logger.warning(
            "stream %s is kept by %d NATS servers, not yet by %d: NATS says %s",
            there.name,
            there.num_replicas or 1,
            replicas,
            error.description,
        )


def acknowledged(answer: Msg) -> int:
    """The sequence at which a stream took a message. Raises nats-py's APIError if it did not; ValueError."""
    try:
        content = from_json(answer.data)
        if "error" in content:
            nats.js.errors.APIError.from_error(content["error"])
        return int(content["seq"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError("the answer is none of JetStream's") from error
