"""The contexts of all tenants, as the control plane gets at them for operators."""

from __future__ import annotations

from weft.contexts.contexts import Contexts, of_tenant
from weft.contexts.records import BytesCodec
from weft.model.context_keys import CONTEXTS_BUCKET
from weft.store.bucket import Bucket, Store


class TenantContexts:
    """The contexts of a mesh, by tenant. Open them with `open`."""

    def __init__(self, bucket: Bucket[bytes], author: str) -> None:
        self._bucket = bucket
        self._author = author

    @classmethod
    async def open(cls, store: Store, *, author: str) -> TenantContexts:
        """Those in `store`, which is made to keep them: members use what is there. Raises Unavailable."""
        return cls(await store.bucket(CONTEXTS_BUCKET, BytesCodec(), direct=True), author)

    def of(self, tenant: str) -> Contexts:
        """The contexts of one tenant."""
        return Contexts(self._bucket, of_tenant(tenant), author=self._author)
