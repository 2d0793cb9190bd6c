"""Routes and TrafficPolicies as they are shown and edited: shares, manifests, differences, mistakes.

A resource is edited at the resourceVersion at which it was read, so that what somebody else has changed since
is never overwritten.
"""

from __future__ import annotations

import copy
import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from weft.errors import InvalidRequest, InvalidResource
from weft.model.manifest import parse_documents
from weft.model.route import MAX_WEIGHT
from weft.model.yaml_tree import dump

_SET_BY_THE_MESH = ("generation", "creationTimestamp")

_AROUND = 3
"""Lines that stay as they are, shown before and after each difference."""


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a split."""

    label: str
    weight: int
    share: float
    """Of the calls, 0 to 1."""


@dataclass(frozen=True, slots=True)
class Split:
    """How a rule of a Route divides its calls."""

    rule: int
    """Its place among the Route's rules, from 0."""
    name: str
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class DifferenceLine:
    """One line of a difference."""

    sign: str
    """`+`, `-`, `@` for where it is, or empty for a line that stays."""
    text: str


@dataclass(frozen=True, slots=True)
class Mistake:
    """Something wrong in a manifest."""

    line: int
    """Counted from 1; 0 where it is not known."""
    text: str
    """The line itself."""
    field: str
    message: str


def target_of(document: Mapping[str, Any]) -> str:
    """What a Route or a TrafficPolicy is for, in words."""
    spec = document.get("spec", {})
    target = spec.get("destination") or spec.get("target") or {}
    if target.get("type"):
        return str(target["type"])
    return f"capability {target['capability']}" if target.get("capability") else "every destination"


def splits(document: Mapping[str, Any]) -> list[Split]:
    """How the rules of a Route divide their calls; rules that do not are left out."""
    return [
        Split(place, rule.get("name") or f"rule {place + 1}", _parts(rule["split"], target_of(document)))
        for place, rule in enumerate(document.get("spec", {}).get("rules", ()))
        if rule.get("split")
    ]


def split_text(split: Split) -> str:
    """A split on one line."""
    return ", ".join(f"{each.label} {each.share:.0%}" for each in split.parts)


def route_row(document: Mapping[str, Any]) -> dict[str, Any]:
    """A row for a Route."""
    found = splits(document)
    return {
        **_row(document),
        "rules": len(document["spec"].get("rules", ())),
        "split": "; ".join(map(split_text, found)) or "no split",
    }


def policy_row(document: Mapping[str, Any]) -> dict[str, Any]:
    """A row for a TrafficPolicy: what it says, without what it leaves as it is."""
    spec = document.get("spec", {})
    told = (f"{name}: {_short(value)}" for name, value in spec.items() if name != "target" and value)
    return {**_row(document), "settings": ", ".join(told) or "nothing"}


def reweighted(document: Mapping[str, Any], rule: int, weights: Sequence[int]) -> dict[str, Any]:
    """A Route whose rule divides its calls by these weights. Raises InvalidRequest for what are none."""
    changed = copy.deepcopy(dict(document))
    parts = changed["spec"]["rules"][rule]["split"]
    if len(weights) != len(parts) or not all(0 <= each <= MAX_WEIGHT for each in weights):
        raise InvalidRequest(f"give each of the {len(parts)} parts a weight of 0 to {MAX_WEIGHT}")
    if not any(weights):
        raise InvalidRequest("one of the parts must have a weight above 0, or no call goes anywhere")
    for part, weight in zip(parts, weights, strict=True):
        part["weight"] = weight
    return changed


def manifest_of(document: Mapping[str, Any]) -> str:
    """A resource as YAML to edit, with the resourceVersion that it stands at."""
    shown = copy.deepcopy(dict(document))
    for name in _SET_BY_THE_MESH:
        shown["metadata"].pop(name, None)
    return dump([shown])


def check_edited(text: str, original: Mapping[str, Any]) -> None:
    """See that `text` is that one resource, at the version that was read.

    Raises InvalidResource with the place of every mistake, and InvalidRequest.
    """
    documents = parse_documents(text)
    kind, name = original["kind"], original["metadata"]["name"]
    if len(documents) != 1:
        raise InvalidRequest(f"the text has {len(documents)} resources: here {kind} {name!r} alone is edited")
    edited = documents[0].resource
    if (edited.kind, edited.metadata.name) != (kind, name):
        raise InvalidRequest(
            f"the text is {edited.kind} {edited.metadata.name!r}: here {kind} {name!r} is edited; "
            "make another with 'weft apply'"
        )
    if edited.metadata.resource_version != original["metadata"].get("resourceVersion"):
        raise InvalidRequest(
            "leave metadata.resourceVersion as it was: by it a change that somebody else made meanwhile "
            "is not overwritten"
        )


def mistakes_in(error: InvalidResource, text: str) -> list[Mistake]:
    """What is wrong in a manifest, by line."""
    told = [{"line": each.line, "field": each.field, "message": each.message} for each in error.problems]
    return mistakes(told, text)


def mistakes(told: Iterable[Mapping[str, Any]], text: str) -> list[Mistake]:
    """What the API says is wrong in a manifest (`errors` of its answer), by line."""
    lines = text.splitlines()
    found = []
    for each in told:
        number = int(each.get("line") or 0)
        quoted = lines[number - 1].strip() if 0 < number <= len(lines) else ""
        found.append(Mistake(number, quoted, str(each.get("field") or ""), str(each.get("message") or "")))
    return sorted(found, key=lambda each: each.line)


def difference(before: str | None, after: str) -> list[DifferenceLine]:
    """What changes between two manifests, with a few lines around."""
    lines = difflib.unified_diff((before or "").splitlines(), after.splitlines(), n=_AROUND, lineterm="")
    return [_difference_line(each) for each in list(lines)[2:]]


def _difference_line(line: str) -> DifferenceLine:
    sign, text = line[:1], line[1:]
    if sign == "@":
        return DifferenceLine("@", line)
    return DifferenceLine(sign.strip(), text)


def _parts(parts: Sequence[Mapping[str, Any]], own: str) -> tuple[Part, ...]:
    total = sum(each["weight"] for each in parts)
    return tuple(
        Part(_part_label(each, own), each["weight"], each["weight"] / total if total else 0.0)
        for each in parts
    )


def _part_label(part: Mapping[str, Any], own: str) -> str:
    where = part.get("type") or ("" if part.get("version") else own)
    version = f"version {part['version']}" if part.get("version") else ""
    return " ".join(each for each in (where, version) if each)


def _row(document: Mapping[str, Any]) -> dict[str, Any]:
    metadata = document["metadata"]
    return {
        "id": f"{document['kind']}/{metadata['name']}",
        "name": metadata["name"],
        "kind": document["kind"],
        "target": target_of(document),
        "generation": metadata.get("generation") or 1,
    }


def _short(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name}: {_short(each)}" for name, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_short, value)) + "]"
    return str(value)
