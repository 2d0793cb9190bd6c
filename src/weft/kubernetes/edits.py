"""Changes to a document that can be taken back, as long as nobody has changed the same place since.

What was there before is kept in an annotation, so that a pod can be injected anew, by another version too.
"""

from __future__ import annotations

import json
from copy import deepcopy
from typing import Any, Final

from weft.kubernetes.problem import Refusal

RECORD: Final = "weft.dev/restores"
"""The annotation with what was there before, as JSON."""

MAX_RECORD: Final = 128 * 1024
"""Characters of it; Kubernetes takes 256 KiB of annotations."""

_MAX_DEPTH: Final = 32
"""Of what is in a record; nothing in a pod lies so deep."""

Place = tuple[str, ...]
"""Keys from the document on; what lies in a list is found by its `name`."""


class Edits:
    """Changes to one document."""

    def __init__(self, document: dict[str, Any]) -> None:
        """`document` is changed in place."""
        self._document = document
        self._made: list[dict[str, Any]] = []

    def add(self, *place: str, value: Any) -> None:
        """Put something in a list, first of all, under a name of ours. Raises Refusal if it is taken."""
        if _found(self._document, place) is not None:
            raise Refusal(
                "NameTaken",
                f"{'.'.join(place)} is there already, and not by `weft inject`: give it another name",
            )
        self._made.append({"at": list(place)})
        _set(self._document, place, value)

    def put(self, *place: str, value: Any) -> None:
        """Put something in its place; what a list does not have yet comes first in it."""
        was = _found(self._document, place)
        if was == value:
            return
        made: dict[str, Any] = {"at": list(place), "put": deepcopy(value)}
        self._made.append(made if was is None else made | {"was": was})
        _set(self._document, place, value)

    def record(self) -> None:
        """Keep in the document what was changed."""
        text = json.dumps(self._made, separators=(",", ":"), ensure_ascii=False)
        self._document["metadata"]["annotations"][RECORD] = text


def take_back(document: dict[str, Any]) -> None:
    """Take back what `Edits` did to `document`, in place; what was changed since stays as it is.

    Raises Refusal if it does not say what that was.
    """
    annotations = (document.get("metadata") or {}).get("annotations") or {}
    record = annotations.pop(RECORD, None)
    if record is None:
        return
    for edit in reversed(_read(record)):
        place = tuple(edit["at"])
        if "put" in edit and _found(document, place) != edit["put"]:
            continue
        if "was" in edit:
            _set(document, place, edit["was"])
        else:
            _remove(document, place)


def _read(record: Any) -> list[dict[str, Any]]:
    try:
        edits = json.loads(record) if isinstance(record, str) and len(record) <= MAX_RECORD else None
    except (ValueError, RecursionError):
        edits = None
    if not isinstance(edits, list) or _is_deep(edits) or not all(_is_edit(each) for each in edits):
        raise Refusal(
            "RecordBroken",
            f"annotation {RECORD} was changed, and says no more what was there before: use the manifest as "
            f"it was before `weft inject`",
        )
    return edits


def _is_edit(edit: Any) -> bool:
    """Whether it is one of those that `Edits` makes: not to a pod's namespace, say."""
    place = edit.get("at") if isinstance(edit, dict) else None
    if not isinstance(place, list) or not all(isinstance(each, str) for each in place):
        return False
    if place[:1] == ["metadata"]:
        return len(place) == 3 and place[1] in {"annotations", "labels"}
    return place[:1] == ["spec"] and len(place) > 1


def _is_deep(value: Any) -> bool:
    """Whether it is more than can be copied."""
    level = [value]
    for _ in range(_MAX_DEPTH):
        holders = (each.values() if isinstance(each, dict) else each for each in level)
        level = [inner for each in holders for inner in each if isinstance(inner, dict | list)]
        if not level:
            return False
    return True


def _found(document: dict[str, Any], place: Place) -> Any:
    here: Any = document
    for step in place:
        here = _step(here, step)
    return here


def _step(here: Any, step: str) -> Any:
    if isinstance(here, list):
        return next((each for each in here if isinstance(each, dict) and each.get("name") == step), None)
    return here.get(step) if isinstance(here, dict) else None


_LISTS: Final = frozenset({"containers", "initContainers", "volumes", "env", "volumeMounts", "ports"})


def _set(document: dict[str, Any], place: Place, value: Any) -> None:
    here: Any = document
    for step in place[:-1]:
        there = _step(here, step)
        if there is None:
            if isinstance(here, list):
                return  # what it was part of is gone
            there = here[step] = [] if step in _LISTS else {}
        here = there
    if not isinstance(here, list):
        here[place[-1]] = deepcopy(value)
        return
    old = _step(here, place[-1])
    if old is None:
        here.insert(0, deepcopy(value))
    else:
        here[here.index(old)] = deepcopy(value)


def _remove(document: dict[str, Any], place: Place) -> None:
    """Remove what is there, and what was only there to hold it."""
    parent = _found(document, place[:-1])
    gone = _step(parent, place[-1])
    if gone is None:
        return
    if isinstance(parent, list):
        parent.remove(gone)
    else:
        del parent[place[-1]]
    # What a list holds has a name, and stays.
    if not parent and len(place) > 2:
        _remove(document, place[:-1])
