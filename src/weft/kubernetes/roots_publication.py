"""The mesh's roots, out of the file that a control plane keeps, into a ConfigMap beside it.

Every replica of the control plane does so: what they write is the same, and a cluster's API takes what is
there already for no change.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from weft.aio.signals import stop_signals
from weft.aio.tasks import TaskOwner
from weft.errors import Denied, InvalidRequest, MeshError, NotFound, Unauthenticated, Unavailable
from weft.identity.cluster_api import Answer, ClusterApi
from weft.identity.pod_access import PodAccess
from weft.kubernetes.health import serving_health
from weft.kubernetes.injection_settings import ROOTS_FILE
from weft.kubernetes.roots_file import read_roots

logger = logging.getLogger(__name__)

PUBLISHER_PORT = 7406

INTERVAL = 1.0
"""Seconds between two looks at the file."""

AGAIN_AFTER = 300.0
"""Seconds after which roots are published again that have not changed: somebody may have removed them."""

_LONGEST_PAUSE = 30.0

Access = Callable[[], PodAccess]
"""As whom to come to the API server; asked each time, as tokens are replaced. Raises InvalidRequest."""


async def publish_roots(file: Path, config_map: str, *, host: str, health_port: int) -> None:
    """Keep the ConfigMap `config_map` of the pod's namespace like `file`, until SIGTERM or SIGINT.

    Raises InvalidRequest if this process is in no pod, Unavailable if `health_port` is taken.
    """

    def access() -> PodAccess:
        return PodAccess.of(os.environ)

    access()  # better said now than over and over
    publication = RootsPublication(file, config_map, access)
    stop = asyncio.Event()
    checks = {"/livez": publication.living, "/readyz": publication.ready}
    with stop_signals(stop.set):
        async with TaskOwner("publication") as tasks, serving_health(host, health_port, checks):
            tasks.start(publication.run(), name="roots", endless=True)
            await stop.wait()


@dataclass
class _Published:
    roots: bytes = b""
    at: float = -AGAIN_AFTER


class RootsPublication:
    """Publishes one file. Have `run` run."""

    def __init__(
        self, file: Path, config_map: str, access: Access, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._file = file
        self._config_map = config_map
        self._access = access
        self._clock = clock
        self._published = _Published()
        self._problem = ""
        self._looked = clock()

    async def run(self) -> None:
        """Look at the file, and publish what is new in it, for ever."""
        pause = INTERVAL
        while True:
            try:
                await self.look()
                self._note("")
                pause = INTERVAL
            except (MeshError, OSError) as error:
                self._note(error.detail if isinstance(error, MeshError) else str(error))
                pause = min(2 * pause, _LONGEST_PAUSE)
            self._looked = self._clock()
            await asyncio.sleep(pause)

    async def look(self) -> bool:
        """Publish the file's roots if they are news, or were published long ago; whether they were.

        Raises InvalidRequest where there is no access or the file holds no roots, NotFound where there is no
        such ConfigMap, Denied or Unauthenticated if it may not be changed, Unavailable, OSError.
        """
        roots = await asyncio.to_thread(read_roots, self._file)
        now = self._clock()
        if not roots or (roots == self._published.roots and now - self._published.at < AGAIN_AFTER):
            return False
        await self._publish(roots)
        if roots != self._published.roots:
            logger.info("the mesh's roots are published in ConfigMap %s", self._config_map)
        self._published = _Published(roots, now)
        return True

    async def living(self) -> str:
        """What is wrong with it that a start may cure; empty if nothing is."""
        silent = self._clock() - self._looked
        return f"it has not looked at {self._file} for {silent:.0f} s" if silent > 4 * _LONGEST_PAUSE else ""

    async def ready(self) -> str:
        """Why the roots were never published; empty if they were: that the API is away now is no reason."""
        if self._published.roots:
            return ""
        return self._problem or f"there are no roots in {self._file} yet"

    async def _publish(self, roots: bytes) -> None:
        access = self._access()
        path = f"/api/v1/namespaces/{access.namespace}/configmaps/{self._config_map}"
        async with ClusterApi(access) as api:
            answer = await api.merge(path, {"data": {ROOTS_FILE: roots.decode("ascii")}})
        if answer.status != 200:
            raise _refusal(answer, f"{access.namespace}/{self._config_map}")

    def _note(self, problem: str) -> None:
        if problem and problem != self._problem:
            logger.warning("the mesh's roots are not published, trying on: %s", problem)
        self._problem = problem


def _refusal(answer: Answer, config_map: str) -> MeshError:
    message = answer.problem().message
    said = f"ConfigMap {config_map} could not be changed: the API server answers {answer.status}" + (
        f" ({message})" if message else ""
    )
    match answer.status:
        case 401:
            return Unauthenticated(f"{said}: is the pod's service account token of this cluster?")
        case 403:
            return Denied(f"{said}: give the pod's service account a Role that may patch this ConfigMap")
        case 404:
            return NotFound(f"{said}: apply the installation's manifests, of which it is one")
        case status if 400 <= status < 500 and status != 429:
            return InvalidRequest(said)
    return Unavailable(said)
