"""Values of an installation as people give them: files, and single ones as `a.b=c`; the later ones win."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from weft.errors import FieldProblem, InvalidRequest, InvalidResource
from weft.kubernetes.installation_values import overlaid
from weft.kubernetes.manifest_text import read_manifests

_PART = re.compile(r"(?:\\.|[^.\\])+")
_MAX_PARTS = 16


def read_values_file(text: str, file: str) -> dict[str, Any]:
    """The one mapping that a file of values is; none, if it is empty. Raises InvalidResource."""
    documents = [each for each in read_manifests(text, file) if each is not None]
    if len(documents) > 1:
        raise InvalidResource([FieldProblem("there is more than one document: values are one", file=file)])
    found = documents[0] if documents else {}
    if not isinstance(found, dict):
        raise InvalidResource([FieldProblem("values are a mapping", file=file)])
    return found


def assignment(text: str) -> dict[str, Any]:
    """What `a.b=c` says, as a mapping; a dot that is part of a name is written `\\.`, the value as in YAML.

    Raises InvalidRequest where it says nothing.
    """
    path, separator, value = text.partition("=")
    parts = _PART.findall(path)
    if not separator or not parts or len(parts) > _MAX_PARTS or ".".join(parts) != path:
        raise InvalidRequest(f"--set {text[:64]!r} says nothing: use NAME.NAME=VALUE")
    try:
        [found] = read_manifests(value, "value") or [""]
    except (InvalidResource, ValueError) as error:
        raise InvalidRequest(f"--set {path[:64]}: the value is no YAML: {error}") from error
    for part in reversed(parts):
        found = {re.sub(r"\\(.)", r"\1", part): found}
    return dict(found)


def merged(given: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """All of them as one: mappings by their names, everything else as the last one says."""
    together: dict[str, Any] = {}
    for each in given:
        together = overlaid(together, each)
    return together
