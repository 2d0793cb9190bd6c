"""The mesh's instances as the control plane sees them, kept up to date."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import aclosing

from pydantic import ValidationError

from weft.errors import MeshError
from weft.local.control import ControlApi
from weft.model.agent import Instance, Status
from weft.sdk.directory import ChangeKind, InstanceRecord
from weft.sdk.sse import Event

logger = logging.getLogger(__name__)

_PAUSE = 0.5
_CLOCK_TOLERANCE = 0.05


class Instances:
    """Who is registered. `run` follows the control plane; all else may be called meanwhile."""

    def __init__(self, api: ControlApi, changed: Callable[[], None]) -> None:
        """`changed` is called whenever an instance came, went or changed."""
        self._api = api
        self._changed = changed
        self._known: dict[str, Instance] = {}
        self._listed: set[str] | None = None

    def get(self, agent_type: str, instance: str) -> Instance | None:
        """An instance, as it was last heard of."""
        return self._known.get(f"{agent_type}.{instance}")

    def healthy(self, agent_type: str, instance: str, *, since: float) -> bool:
        """Whether the instance is healthy, and is the one started after `since` (seconds since 1970)."""
        found = self.get(agent_type, instance)
        return (
            found is not None
            and found.status is Status.HEALTHY
            and found.started_at >= since - _CLOCK_TOLERANCE
        )

    async def run(self) -> None:
        """Follow the control plane, through its restarts, until cancelled."""
        while True:
            self._listed = set()
            try:
                async with aclosing(self._api.watch("/v1/agents", [("status", "any")])) as events:
                    async for event in events:
                        self._take(event)
            except MeshError as error:
                logger.info("the watch of instances broke off (%s); it begins anew", error)
            await asyncio.sleep(_PAUSE)

    def _take(self, event: Event) -> None:
        if event.name == "synced":
            self._synced()
        elif event.name in set(ChangeKind):
            self._note(event)
        self._changed()

    def _note(self, event: Event) -> None:
        try:
            instance = InstanceRecord.model_validate_json(event.data).instance()
        except ValidationError as error:
            logger.warning("the control plane speaks of an instance that makes no sense: %s", error)
            return
        if event.name == ChangeKind.REMOVED:
            self._known.pop(instance.key, None)
        else:
            self._known[instance.key] = instance
            if self._listed is not None:
                self._listed.add(instance.key)

    def _synced(self) -> None:
        if self._listed is not None:
            self._known = {key: each for key, each in self._known.items() if key in self._listed}
        self._listed = None
