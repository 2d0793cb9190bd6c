"""Manifests: resources as YAML (or JSON, which is YAML), with the place of every mistake."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from pydantic import ValidationError

from weft.errors import FieldProblem, InvalidResource
from weft.model.consistency import Inconsistency, inconsistencies
from weft.model.resource import KINDS, AnyResource, resource_model
from weft.model.validation import did_you_mean, explain, shown
from weft.model.yaml_tree import NotYaml, Path, Tree, dump, trees

MAX_MANIFEST_BYTES = 1024 * 1024
MAX_RESOURCES = 1000
MAX_PROBLEMS = 100
"""How many problems are told at once."""

_PLAIN_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True, slots=True)
class Document:
    """One resource of a manifest, and where its fields stand."""

    resource: AnyResource
    file: str
    lines: Mapping[Path, int]
    """Line, counted from 1, of every field by its path."""

    def problem(self, message: str, path: Path) -> FieldProblem:
        """A problem with the field at `path`, or where that is not given, with the nearest one around it."""
        return FieldProblem(message, field_name(path), self.file, _line(self.lines, path))


def parse_manifest(text: str, file: str = "") -> list[AnyResource]:
    """The resources that `text` declares, checked one by one and together.

    `file` is what errors call it. Raises InvalidResource with every problem found, by file, line and field.
    """
    documents = parse_documents(text, file)
    check_together(documents)
    return [each.resource for each in documents]


def parse_documents(text: str, file: str = "") -> list[Document]:
    """The resources that `text` declares, each checked by itself. Raises InvalidResource."""
    if len(text.encode(errors="replace")) > MAX_MANIFEST_BYTES:
        raise InvalidResource(
            [FieldProblem(f"the manifest is larger than {MAX_MANIFEST_BYTES} bytes", file=file)]
        )
    documents: list[Document] = []
    problems: list[FieldProblem] = []
    found = trees(text)
    try:
        for tree in islice(found, MAX_RESOURCES):
            try:
                documents.append(_document(tree, file))
            except InvalidResource as error:
                problems.extend(error.problems)
        if next(found, None) is not None:
            problems.append(FieldProblem(f"more than {MAX_RESOURCES} resources in one manifest", file=file))
    except NotYaml as error:
        problems.append(FieldProblem(str(error), file=file, line=error.line))
    if not documents and not problems:
        problems.append(FieldProblem("the manifest declares no resource", file=file))
    _raise(problems)
    return documents


def parse_resource(value: Any) -> AnyResource:
    """The resource that `value`, of JSON types, declares, checked by itself. Raises InvalidResource."""
    return _document(Tree(value, {}, {}, ()), "").resource


def check_together(documents: Iterable[Document], stored: Iterable[AnyResource] = ()) -> None:
    """Check the resources of a manifest against each other and those `stored`. Raises InvalidResource.

    What was wrong among those stored already is passed over, unless the manifest says it again.
    """
    documents, stored = list(documents), list(stored)
    by_key = {each.resource.key: each for each in documents}
    others = [each for each in stored if each.key not in by_key]
    known = set(inconsistencies(stored))
    problems = list(_doubled(documents))
    for found in inconsistencies([*others, *(each.resource for each in by_key.values())]):
        if found.key in by_key:
            problems.append(by_key[found.key].problem(found.message, found.path))
        elif found not in known:
            problems.append(_elsewhere(found))
    _raise(problems)


def dump_manifest(resources: Iterable[AnyResource]) -> str:
    """`resources` as YAML."""
    return dump([each.document() for each in resources])


def _document(tree: Tree, file: str) -> Document:
    """The resource in `tree`. Raises InvalidResource."""
    resource, mistakes = _resource(tree.value)
    problems = {
        each.path: FieldProblem(each.message, field_name(each.path), file, each.line)
        for each in tree.problems
    }
    for path, message in mistakes:
        # What was left out of the tree for a reason is told once, by that reason.
        problems.setdefault(path, FieldProblem(message, field_name(path), file, _line(tree.lines, path)))
    if resource is None or problems:
        raise InvalidResource(list(problems.values()))
    return Document(resource, file, tree.lines)


def _resource(value: Any) -> tuple[AnyResource | None, list[tuple[Path, str]]]:
    """The resource that `value` is, or what is wrong with it and where."""
    if not isinstance(value, dict):
        return None, [((), "must be a mapping with apiVersion, kind, metadata and spec")]
    kind = value.get("kind")
    model = resource_model(kind) if isinstance(kind, str) else None
    if model is None:
        return None, [(("kind",), _unknown_kind(kind))]
    try:
        # Through JSON, since there Pydantic's strict mode takes lists and texts for what they stand for.
        resource = model.model_validate_json(json.dumps(value), strict=True, by_alias=True, by_name=False)
    except ValidationError as error:
        return None, list(_mistakes(error, model))
    return resource, []


def _mistakes(error: ValidationError, model: type[AnyResource]) -> Iterator[tuple[Path, str]]:
    errors = error.errors(include_url=False)[:MAX_PROBLEMS]
    around = {each["loc"][:end] for each in errors for end in range(len(each["loc"]))}
    for each in errors:
        # Pydantic counts only what is right in a list: one with a mistake in it is not too short for that.
        if each["type"] != "too_short" or each["loc"] not in around:
            yield _path(each["loc"]), explain(each, model)


def _doubled(documents: Iterable[Document]) -> Iterator[FieldProblem]:
    first: dict[str, Document] = {}
    for each in documents:
        earlier = first.setdefault(each.resource.key, each)
        if earlier is not each:
            line = _line(earlier.lines, ("metadata", "name"))
            message = (
                f"{each.resource.kind} {each.resource.metadata.name!r} is declared already, on line {line}"
            )
            yield each.problem(message, ("metadata", "name"))


def _elsewhere(found: Inconsistency) -> FieldProblem:
    """A problem that the manifest makes in a resource which is stored."""
    return FieldProblem(
        f"with this, {found.key}, which is declared already, {found.message}", field_name(found.path)
    )


def _unknown_kind(kind: Any) -> str:
    if not isinstance(kind, str):
        return f"a resource needs a kind: one of {', '.join(KINDS)}"
    return f"there is no kind {shown(kind)}{did_you_mean(kind, KINDS)}"


def _raise(problems: list[FieldProblem]) -> None:
    """Raise InvalidResource if there are any problems, in the order in which they stand in the manifest."""
    problems = sorted(problems, key=lambda each: each.line or math.inf)
    more = len(problems) - MAX_PROBLEMS
    if more > 0:
        problems = [*problems[:MAX_PROBLEMS], FieldProblem(f"and {more} more problems")]
    if problems:
        raise InvalidResource(problems)


def _path(location: Path) -> Path:
    """Pydantic's name for where a problem is, without its mark for the key of a mapping."""
    return location[:-1] if location and location[-1] == "[key]" else location


def field_name(path: Path) -> str:
    """How people are told of the field at `path`: `spec.rules[0].timeout`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{part}" if _PLAIN_NAME.fullmatch(part) else f"[{shown(part)}]"
    return text.removeprefix(".")


def _line(lines: Mapping[Path, int], path: Path) -> int:
    while path and path not in lines:
        path = path[:-1]
    return lines.get(path, 0)
