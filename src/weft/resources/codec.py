"""Resources as JSON in the store."""

from __future__ import annotations

import json

from pydantic_core import from_json

from weft.model.resource import AnyResource, resource_model
from weft.model.secret import STORED


class ResourceCodec:
    """Resources as JSON. The resourceVersion is the store's own revision, so it is not written.

    The values of a Secret are written sealed, or not at all.
    """

    def encode(self, value: AnyResource) -> bytes:
        """Return the JSON of `value`. Raises ValueError if it holds a secret that is not sealed."""
        document = value.stored()
        document["metadata"].pop("resourceVersion", None)
        return json.dumps(document, separators=(",", ":")).encode()

    def decode(self, data: bytes) -> AnyResource:
        """Return the resource in `data`; raise ValueError if it holds none."""
        document = from_json(data)
        model = resource_model(str(document.get("kind"))) if isinstance(document, dict) else None
        if model is None:
            raise ValueError("not a resource of a known kind")
        return model.model_validate_json(data, strict=True, by_alias=True, by_name=False, context=STORED)
