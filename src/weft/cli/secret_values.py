"""The values of Secrets that a manifest only refers to: put in their place before it is sent anywhere.

So that manifests can be shown to everybody: `apiKey: {fromEnv: PROVIDER_KEY}` or `apiKey: {fromFile: ./key}`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from weft.errors import FieldProblem, InvalidResource
from weft.model.secret import MAX_VALUE_BYTES, Source
from weft.model.yaml_tree import NotYaml, Span, Tree, trees

_DATA = ("spec", "data")


@dataclass(frozen=True, slots=True)
class _Place:
    """A reference in a text."""

    source: Source
    name: str
    field: str
    line: int
    span: Span


class _NoValue(Exception):
    """A value is not where the reference says; the text tells why, and never the value."""


def with_secret_values(text: str, file: str, environ: Mapping[str, str]) -> str:
    """The manifest `text` with every value in the place of the reference to it; no line moves.

    `file` is the manifest's: other files are relative to its directory. Raises InvalidResource, with every
    value that is not there, by file, line and field.
    """
    if not any(source in text for source in Source):
        return text
    problems: list[FieldProblem] = []
    result, end = "", 0
    for place in _places(text):
        try:
            value = _value(place, Path(file).parent, environ)
        except _NoValue as error:
            problems.append(FieldProblem(str(error), place.field, file, place.line))
            continue
        first, behind = place.span
        lines = text.count("\n", first, behind)
        result += text[end:first] + _quoted(value) + "\n" * lines
        end = behind
    if problems:
        raise InvalidResource(problems)
    return result + text[end:]


def variables_of(text: str) -> frozenset[str]:
    """The environment variables that the manifest `text` refers to."""
    if Source.ENVIRONMENT not in text:
        return frozenset()
    return frozenset(each.name for each in _places(text) if each.source is Source.ENVIRONMENT)


def _places(text: str) -> Iterator[_Place]:
    """The references, in the order in which they stand."""
    try:
        for tree in trees(text):
            yield from _places_in(tree)
    except NotYaml:
        return  # what is wrong is told by those who take the manifest


def _places_in(tree: Tree) -> Iterator[_Place]:
    document = tree.value
    spec = document.get("spec") if isinstance(document, dict) and document.get("kind") == "Secret" else None
    data = spec.get("data") if isinstance(spec, dict) else None
    for key, value in data.items() if isinstance(data, dict) else ():
        if not isinstance(value, dict) or len(value) != 1:
            continue
        [(source, name)] = value.items()
        if source in set(Source) and isinstance(name, str) and name:
            path = (*_DATA, key)
            yield _Place(Source(source), name, ".".join(path), tree.lines[path], tree.spans[path])


def _value(place: _Place, directory: Path, environ: Mapping[str, str]) -> str:
    if place.source is Source.FILE:
        value = _read(directory / place.name)
    else:
        found = environ.get(place.name)
        if found is None:
            raise _NoValue(f"the environment variable {place.name} is not set")
        value = found
    if not value:
        raise _NoValue(f"{place.name} is empty")
    return value


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_VALUE_BYTES + 1)
    except OSError as error:
        raise _NoValue(f"{path} cannot be read: {error.strerror or 'it is no file'}") from error
    if len(content) > MAX_VALUE_BYTES:
        raise _NoValue(f"{path} is larger than the {MAX_VALUE_BYTES} bytes a value may have")
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise _NoValue(f"{path} is not a text in UTF-8") from None
    return text.removesuffix("\n").removesuffix("\r")


def _quoted(value: str) -> str:
    """`value` as a scalar in double quotes, all on one line."""
    return f'"{"".join(_escaped(each) for each in value)}"'


def _escaped(character: str) -> str:
    if character in '"\\':
        return f"\\{character}"
    return character if character.isascii() and character.isprintable() else f"\\U{ord(character):08x}"
