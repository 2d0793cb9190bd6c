"""Which replica leads: whoever holds a Lease (coordination.k8s.io/v1), and renews it in time.

No clock is compared with another's: a replica counts from when it saw the Lease change. A leader stops before
others may take over.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from weft.aio.cancellation import end
from weft.aio.poll import until
from weft.errors import Conflict, MeshError, NotFound
from weft.kubernetes.controller.cluster import Cluster
from weft.kubernetes.controller.kinds import LEASE, Document, Key

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Terms:
    """How long who leads unheard, in seconds."""

    lease: float = 15.0
    """After so long without a renewal others may take over."""
    deadline: float = 10.0
    """After so long without one the leader stops; less than `lease`."""
    pause: float = 2.0
    """Between attempts to renew, or to lead."""


TERMS: Final = Terms()

Work = Callable[[], Awaitable[None]]


class Leadership:
    """This replica's part in it."""

    def __init__(self, cluster: Cluster, lease: Key, identity: str, *, terms: Terms = TERMS) -> None:
        """`identity` is the name of this pod."""
        self.leading = False
        """Whether this replica leads now."""
        self.heard = False
        """Whether the Lease could be read or written at the last attempt."""
        self._cluster = cluster
        self._key = lease
        self._identity = identity
        self._terms = terms
        self._held_by_another = False
        self._seen: tuple[str, float] = ("", 0.0)
        """The Lease's version, and when it was first seen."""

    async def run(self, work: Work) -> None:
        """Do `work` whenever this replica leads; it is cancelled where it leads no more. Without end.

        What `work` raises is raised. When this is cancelled the Lease is given back.
        """
        try:
            while True:
                await self._wait_to_lead()
                logger.info("%s leads", self._identity)
                await self._lead(work)
                logger.warning("%s leads no more", self._identity)
        finally:
            await self._give_back()

    async def _wait_to_lead(self) -> None:
        await until(self._attempt, first=self._terms.pause, longest=self._terms.pause)
        self.leading = True

    async def _lead(self, work: Work) -> None:
        working = asyncio.ensure_future(work())
        loop = asyncio.get_running_loop()
        renewed = loop.time()
        try:
            while loop.time() - renewed < self._terms.deadline:
                await asyncio.wait([working], timeout=self._terms.pause)
                if working.done():
                    await working
                    return
                began = loop.time()
                try:
                    async with asyncio.timeout_at(renewed + self._terms.deadline):
                        if await self._attempt():
                            renewed = began
                        elif self._held_by_another:
                            return
                except TimeoutError:
                    return
        finally:
            self.leading = False
            await end([working])

    async def _attempt(self) -> bool:
        """Whether this replica has the Lease from now on, for the whole of its duration."""
        self._held_by_another = False
        try:
            found = await self._cluster.get(LEASE, self._key)
            self.heard = True
            if found is None:
                await self._cluster.create(LEASE, self._lease({}))
                return True
            if not self._may_take(found):
                self._held_by_another = True
                return False
            await self._cluster.replace(LEASE, {**found, "spec": self._spec(found.get("spec") or {})})
        except Conflict:
            return False
        except MeshError as error:
            self.heard = False
            logger.warning("the Lease %s cannot be had: %s", self._key, error.detail)
            return False
        return True

    def _may_take(self, found: Document) -> bool:
        spec = found.get("spec") or {}
        if spec.get("holderIdentity") in {None, "", self._identity}:
            return True
        now, version = asyncio.get_running_loop().time(), found["metadata"]["resourceVersion"]
        if version != self._seen[0]:
            self._seen = (version, now)
            return False
        return now - self._seen[1] > float(spec.get("leaseDurationSeconds") or self._terms.lease)

    def _lease(self, spec: Document) -> Document:
        return {
            "apiVersion": LEASE.api_version,
            "kind": LEASE.kind,
            "metadata": {"name": self._key.name, "namespace": self._key.namespace},
            "spec": self._spec(spec),
        }

    def _spec(self, before: Document) -> Document:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        same = before.get("holderIdentity") == self._identity
        return {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": max(1, round(self._terms.lease)),
            "acquireTime": before.get("acquireTime", now) if same else now,
            "renewTime": now,
            "leaseTransitions": int(before.get("leaseTransitions") or 0) + (0 if same or not before else 1),
        }

    async def _give_back(self) -> None:
        """Let another one lead at once, as far as that can be told."""
        try:
            async with asyncio.timeout(self._terms.pause):
                found = await self._cluster.get(LEASE, self._key)
                if found is not None and (found.get("spec") or {}).get("holderIdentity") == self._identity:
                    spec = {**found["spec"], "holderIdentity": ""}
                    await self._cluster.replace(LEASE, {**found, "spec": spec})
        except (MeshError, NotFound, TimeoutError) as error:
            logger.info("the Lease %s is not given back, and will lapse: %s", self._key, error)
