"""The artifacts of a context: data of some size, in pieces, with a list of what there is.

The pieces are written first, under a new token, and then the list, by compare-and-set: whoever dies in
between leaves pieces that nobody finds, and that end with the context.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from weft.contexts.at_once import each_of
from weft.contexts.place import Place, tries
from weft.contexts.records import (
    CHUNK_BYTES,
    Artifact,
    ArtifactInfo,
    artifacts_bytes,
    check_artifact,
    parse_artifacts,
)
from weft.errors import Conflict, InvalidRequest, MeshError, NotFound, Unavailable

T = TypeVar("T")

_LAG = 0.1


@dataclass(frozen=True, slots=True)
class ArtifactShelf:
    """The artifacts of the context at `place`."""

    place: Place

    async def put(self, name: str, data: bytes, media_type: str) -> ArtifactInfo:
        """Keep `data` as the artifact `name`, in place of the one that was called so.

        Raises InvalidRequest for a name, type or size beyond the limits, NotFound, Conflict if the list
        changes all the time, Unavailable and Denied.
        """
        check_artifact(name, media_type)
        info = ArtifactInfo(
            name,
            media_type,
            len(data),
            hashlib.sha256(data).hexdigest(),
            self.place.clock(),
            secrets.token_hex(8),
        )
        self._check_room((await self._listed())[0], info)
        try:
            await each_of(range(info.chunks), lambda number: self._write(info, number, data))
            former = await self._enter(info)
        except BaseException:
            with suppress(MeshError):
                await self._drop(info)
            raise
        if former is not None:
            with suppress(MeshError):  # what is left ends with the context
                await self._drop(former)
        return info

    async def get(self, name: str) -> Artifact:
        """An artifact. Raises NotFound, Unavailable if its data is not all there, and Denied."""
        for pause in (_LAG, _LAG, 5 * _LAG, 0.0):
            info = await self._find(name)
            chunks = await each_of(range(info.chunks), partial(self._read, info))
            data = b"".join(chunks)
            if hashlib.sha256(data).hexdigest() == info.sha256:
                return Artifact(info, data)
            await asyncio.sleep(pause)  # just being replaced, or not known to every replica yet
        raise Unavailable(
            f"artifact {name!r} of context {self.place.keys.id[:100]!r} is not all there: put it there again"
        )

    async def remove(self, name: str) -> None:
        """Forget an artifact. Raises NotFound, Conflict, Unavailable and Denied."""
        removed = await self._change(lambda known: ([each for each in known if each.name != name], known))
        former = next((each for each in removed if each.name == name), None)
        if former is None:
            raise self._missing(name)
        with suppress(MeshError):
            await self._drop(former)

    async def all(self) -> list[ArtifactInfo]:
        """What artifacts there are, by name. Raises Unavailable and Denied."""
        return sorted((await self._listed())[0], key=lambda each: each.name)

    async def drop_all(self) -> None:
        """Remove all data and the list, of a context that is deleted. Raises Unavailable and Denied."""
        for each in (await self._listed())[0]:
            await self._drop(each)
        await self.place.bucket.delete(self.place.artifacts)

    async def _listed(self) -> tuple[list[ArtifactInfo], int]:
        entry = await self.place.bucket.get(self.place.artifacts)
        if entry is None:
            return [], 0
        try:
            return parse_artifacts(entry.value), entry.revision
        except ValueError as error:
            raise Unavailable(
                f"the artifacts of context {self.place.keys.id[:100]!r} cannot be read: {error}"
            ) from error

    async def _find(self, name: str) -> ArtifactInfo:
        for pause in (_LAG, 0.0):
            for each in (await self._listed())[0]:
                if each.name == name:
                    return each
            await asyncio.sleep(pause)  # put there just now, perhaps
        raise self._missing(name)

    async def _enter(self, info: ArtifactInfo) -> ArtifactInfo | None:
        """Write it into the list; return what it replaces there."""

        def entered(known: list[ArtifactInfo]) -> tuple[list[ArtifactInfo], ArtifactInfo | None]:
            self._check_room(known, info)
            former = next((each for each in known if each.name == info.name), None)
            return [*(each for each in known if each is not former), info], former

        return await self._change(entered)

    async def _change(self, change: Callable[[list[ArtifactInfo]], tuple[list[ArtifactInfo], T]]) -> T:
        """Write the list that `change` makes of the one there is; return what it gives beside."""
        place = self.place
        for pause in tries():
            known, revision = await self._listed()
            listed, result = change(known)
            try:
                if revision:
                    await place.bucket.update(
                        place.artifacts, artifacts_bytes(listed), revision=revision, ttl=place.ttl
                    )
                else:
                    await place.bucket.create(place.artifacts, artifacts_bytes(listed), ttl=place.ttl)
            except Conflict:
                await asyncio.sleep(pause)
                continue
            return result
        raise Conflict(f"the artifacts of context {place.keys.id[:100]!r} change all the time; try again")

    def _check_room(self, known: list[ArtifactInfo], wanted: ArtifactInfo) -> None:
        """Raise InvalidRequest unless there is room for `wanted`."""
        limits = self.place.head.limits
        others = [each for each in known if each.name != wanted.name]
        if wanted.size > limits.artifact_bytes:
            raise InvalidRequest(
                f"artifact {wanted.name!r} has {wanted.size} bytes; the limit is {limits.artifact_bytes}"
            )
        if len(others) >= limits.artifacts:
            raise InvalidRequest(
                f"context {self.place.keys.id[:100]!r} has {limits.artifacts} artifacts, and takes no more"
            )
        if sum(each.size for each in others) + wanted.size > limits.total_artifact_bytes:
            raise InvalidRequest(
                f"the artifacts of context {self.place.keys.id[:100]!r} would have more than "
                f"{limits.total_artifact_bytes} bytes together: remove some"
            )

    async def _write(self, info: ArtifactInfo, number: int, data: bytes) -> None:
        piece = data[number * CHUNK_BYTES : (number + 1) * CHUNK_BYTES]
        key = self.place.chunk(info.token, number)
        await self.place.bucket.put(key, bytes(piece), ttl=self.place.ttl)

    async def _read(self, info: ArtifactInfo, number: int) -> bytes:
        entry = await self.place.bucket.get(self.place.chunk(info.token, number))
        return entry.value if entry is not None else b""

    async def _drop(self, info: ArtifactInfo) -> None:
        await each_of(
            range(info.chunks), lambda number: self.place.bucket.delete(self.place.chunk(info.token, number))
        )

    def _missing(self, name: str) -> NotFound:
        return NotFound(f"context {self.place.keys.id[:100]!r} has no artifact {name[:100]!r}")
