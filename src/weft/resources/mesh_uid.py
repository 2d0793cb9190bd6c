"""Which mesh this is: a name that it gets once, in the store, and that goes with everything that is in there.

Who keeps resources of a mesh elsewhere, too, tells by it a mesh from which something was deleted from one
that has lost its store, and knows nothing any more.
"""

from __future__ import annotations

import uuid

from weft.errors import Conflict
from weft.store.bucket import Bucket

KEY = "mesh"


class MeshUid:
    """The name in the store."""

    def __init__(self, bucket: Bucket[str]) -> None:
        self._bucket = bucket

    async def get(self) -> str:
        """What the store says now, which is not remembered: it may have been emptied. Raises Unavailable."""
        while True:
            found = await self._bucket.get(KEY)
            if found is not None:
                return found.value
            try:
                await self._bucket.create(KEY, str(uuid.uuid4()))
            except Conflict:
                continue
