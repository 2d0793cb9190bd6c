"""YAML (or JSON, which is YAML) as plain values, with the line of every one of them.

Only what JSON can say is read, by the rules of YAML 1.2 (`yes` is text): no aliases, tags or doubled keys.
The values are built from the parser's events, so no input can make this recurse without end or grow.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

MAX_DEPTH = 32
"""Levels of lists and mappings within each other."""

MAX_EVENTS = 200_000
"""Values, keys, and ends of lists and mappings, all documents together: a second's work."""

Path = tuple[str | int, ...]

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's where PyYAML was built with it: it is some ten times as fast."""

_UNREADABLE = re.compile(r"[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")

# Narrower than what `dump` takes for something else than text, and so quotes: all text survives a round trip.
_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLEANS = {
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]{0,17})")
_FLOAT = re.compile(r"[-+]?(0|[1-9][0-9]{0,17})\.[0-9]{1,17}")


Span = tuple[int, int]
"""Index of the first character, and of that behind the last."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something in a text that cannot be taken."""

    message: str
    path: Path
    line: int
    """Counted from 1."""


@dataclass(frozen=True, slots=True)
class Tree:
    """One YAML document."""

    value: Any
    """JSON types only."""
    lines: Mapping[Path, int]
    """Line, counted from 1, of every value by its path; for a member of a mapping that of its key."""
    spans: Mapping[Path, Span]
    """Where every mapping stands in the text, by its path."""
    problems: tuple[Problem, ...]
    """What was left out of `value`, and why."""


class NotYaml(ValueError):
    """The text is not YAML, from `line` (counted from 1) on."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line


def trees(
    text: str, *, plain: Callable[[str], Any] | None = None, max_depth: int = MAX_DEPTH
) -> Iterator[Tree]:
    """The documents in `text` that are not empty. Raises NotYaml where it cannot be read any further.

    `plain` says what a scalar without quotes means, where that is not by the rules of YAML 1.2.
    """
    unreadable = _UNREADABLE.search(text)
    if unreadable:
        line = text.count("\n", 0, unreadable.start()) + 1
        raise NotYaml(f"the character {unreadable[0]!r} is not allowed", line)
    try:
        events = _limited(yaml.parse(text, Loader=_LOADER))
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                tree = _Builder(events, plain or _plain, max_depth).build(next(events))
                if tree.value is not None or tree.problems:
                    yield tree
    except yaml.MarkedYAMLError as error:
        message = ", ".join(part for part in (error.context, error.problem) if part)
        raise NotYaml(message, _line(error.problem_mark)) from error
    except yaml.YAMLError as error:
        raise NotYaml(str(error), 0) from error


def _limited(events: Iterator[Any]) -> Iterator[Any]:
    for count, event in enumerate(events):
        if count == MAX_EVENTS:
            raise NotYaml("more values than one manifest may hold", _line(event.start_mark))
        yield event


def dump(values: list[Any]) -> str:
    """`values` as YAML, each as a document of its own."""
    return yaml.safe_dump_all(values, sort_keys=False, allow_unicode=True, default_flow_style=False)


class _Builder:
    """Builds one document from the events that follow."""

    def __init__(self, events: Iterator[Any], plain: Callable[[str], Any], max_depth: int) -> None:
        self._events = events
        self._plain = plain
        self._max_depth = max_depth
        self._lines: dict[Path, int] = {}
        self._spans: dict[Path, Span] = {}
        self._end = 0
        """Index behind the last character read that is not blank."""
        self._problems: list[Problem] = []

    def build(self, event: Any) -> Tree:
        value = self._value(event, ())
        return Tree(value, self._lines, self._spans, tuple(self._problems))

    def _value(self, event: Any, path: Path) -> Any:
        line = _line(event.start_mark)
        self._lines.setdefault(path, line)
        if len(path) > self._max_depth:
            raise NotYaml(f"nested deeper than {self._max_depth} levels", line)
        if isinstance(event, yaml.AliasEvent):
            return self._refuse("aliases are not allowed: write the value out", path, line)
        if event.anchor is not None:
            self._refuse("anchors are not allowed", path, line)
        if event.tag is not None:
            self._refuse("tags are not allowed", path, line)
        if isinstance(event, yaml.MappingStartEvent):
            members = self._mapping(path)
            self._spans[path] = (_index(event.start_mark), self._end)
            return members
        if isinstance(event, yaml.SequenceStartEvent):
            return self._sequence(path)
        return self._scalar(event, path)

    def _sequence(self, path: Path) -> list[Any]:
        items: list[Any] = []
        for event in self._events:
            if isinstance(event, yaml.SequenceEndEvent):
                self._ends(event)
                break
            items.append(self._value(event, (*path, len(items))))
        return items

    def _mapping(self, path: Path) -> dict[str, Any]:
        members: dict[str, Any] = {}
        for event in self._events:
            if isinstance(event, yaml.MappingEndEvent):
                self._ends(event)
                break
            line = _line(event.start_mark)
            if not isinstance(event, yaml.ScalarEvent) or _CONTROL.search(event.value):
                self._refuse("a key must be plain text", path, line)
                self._skip(event)
                self._skip(next(self._events))
                continue
            key = event.value
            if key in members:
                first = self._lines[*path, key]
                self._refuse(f"given twice, first on line {first}", (*path, key), line)
                self._skip(next(self._events))
                continue
            self._lines[*path, key] = line
            members[key] = self._value(next(self._events), (*path, key))
        return members

    def _skip(self, event: Any) -> None:
        """Read on to the end of the value that begins with `event`."""
        depth = _nesting(event)
        while depth:
            depth += _nesting(next(self._events))

    def _ends(self, event: Any) -> None:
        # Without brackets, the end of a list or mapping is an event without extent, somewhere behind it.
        if _index(event.end_mark) > _index(event.start_mark):
            self._end = _index(event.end_mark)

    def _scalar(self, event: Any, path: Path) -> Any:
        text: str = event.value
        self._end = _index(event.end_mark)
        if _CONTROL.search(text):
            return self._refuse("control characters are not allowed", path, _line(event.start_mark))
        if event.style:
            return text
        return self._plain(text)

    def _refuse(self, message: str, path: Path, line: int) -> None:
        self._problems.append(Problem(message, path, line))


def _plain(text: str) -> Any:
    """What a scalar without quotes means."""
    if text in _NULL:
        return None
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text


def _nesting(event: Any) -> int:
    if isinstance(event, yaml.CollectionStartEvent):
        return 1
    return -1 if isinstance(event, yaml.CollectionEndEvent) else 0


def _line(mark: Any) -> int:
    return mark.line + 1 if mark is not None else 0


def _index(mark: Any) -> int:
    return mark.index if mark is not None else 0
