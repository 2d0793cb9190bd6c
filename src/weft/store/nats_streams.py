"""Having a stream: it is made where it is not there."""

from __future__ import annotations

import nats.js.errors
from nats.js import JetStreamContext
from nats.js.api import StreamConfig

_OTHER_CONFIGURATION = 10058


async def have(jetstream: JetStreamContext, config: StreamConfig) -> None:
    """See that there is a stream of that name; one that is there stays as it is. Raises nats-py's errors."""
    # Asked first: an agent's identity may use a stream, and may not make one.
    try:
        await jetstream.stream_info(config.name or "")
    except nats.js.errors.NotFoundError:
        await _make(jetstream, config)


async def _make(jetstream: JetStreamContext, config: StreamConfig) -> None:
    try:
        await jetstream.add_stream(config)
    except nats.js.errors.BadRequestError as error:
        # An operator may have changed it, to have more replicas, say: it is taken as it is.
        if error.err_code != _OTHER_CONFIGURATION:
            raise
