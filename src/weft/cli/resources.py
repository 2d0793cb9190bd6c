"""Resources as the API gives them, read back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import ValidationError

from weft.errors import Unavailable
from weft.model.manifest import dump_manifest
from weft.model.resource import AnyResource, resource_model


def read_resource(document: dict[str, Any]) -> AnyResource:
    """The resource that is `document` in JSON. Raises Unavailable if this Weft does not know such a one."""
    model = resource_model(str(document.get("kind", "")))
    if model is None:
        raise Unavailable(
            f"the control plane has a kind of resource that is unknown here: {document.get('kind')}"
        )
    try:
        return model.model_validate(document)
    except ValidationError as error:
        raise Unavailable(f"the control plane has a resource that is not understood here: {error}") from error


def as_manifest(documents: Iterable[dict[str, Any]]) -> str:
    """Resources as YAML, which `weft apply` takes again."""
    return dump_manifest(read_resource(each) for each in documents)
