"""What the conformance suite of brokers asks of each back end."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol

from weft.messaging.broker import BrokerAdmin


class RunningBroker(Protocol):
    """A running server, which tests share: each uses names of its own."""

    @property
    def broker(self) -> BrokerAdmin:
        """A client of it, open as long as the server runs. It outlives a restart."""
        ...

    @property
    def durable(self) -> bool:
        """Whether there is a process to kill, and anything left afterwards."""
        ...

    async def connect(self) -> BrokerAdmin:
        """Another client of the same server; who asks closes it."""
        ...

    async def kill(self) -> None:
        """SIGKILL the server and wait for its end."""
        ...

    async def restart(self) -> None:
        """Kill it if it runs, start it again with the same data at the same address; wait until it serves."""
        ...


Backend = Callable[[Path], AbstractAsyncContextManager[RunningBroker]]
"""Starts a server that keeps its data in that directory, and ends it. Calls `pytest.skip` with what is
missing where it is not installed. Entered and left in the same task, in the loop in which the tests run."""
