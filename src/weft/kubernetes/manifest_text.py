"""Manifests of a cluster as text: read and written as `kubectl` does, which is YAML 1.1 more than 1.2.

There `0644` is a number in base eight, and `yes` is a truth; a text that looks like either must be quoted.
"""

from __future__ import annotations

import re
from typing import Any, Final

import yaml

from weft.errors import FieldProblem, InvalidResource
from weft.model.yaml_tree import NotYaml, trees

MAX_DEPTH: Final = 100
"""Levels of lists and mappings within each other: definitions of custom resources have many."""

_TRUE: Final = frozenset({"true", "True", "TRUE", "yes", "Yes", "YES", "on", "On", "ON"})
_FALSE: Final = frozenset({"false", "False", "FALSE", "no", "No", "NO", "off", "Off", "OFF"})
_NULL: Final = frozenset({"", "~", "null", "Null", "NULL"})
_DECIMAL: Final = re.compile(r"[-+]?(0|[1-9][0-9]{0,17})")
_OCTAL: Final = re.compile(r"([-+]?)0o?([0-7]{1,20})")
_HEXADECIMAL: Final = re.compile(r"([-+]?)0x([0-9a-fA-F]{1,15})")
_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]{1,17}|[0-9]{1,17}(\.[0-9]{0,17})?)([eE][-+]?[0-9]{1,2})?")

_LIKE_A_NUMBER: Final = re.compile(
    r"[-+]?\.?[0-9][0-9_.,xobeEA-Fa-f+:-]*|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)|[yYnN]"
)


def read_manifests(text: str, file: str) -> list[Any]:
    """The documents in `text`, JSON types only. Raises InvalidResource, with what is wrong on which line."""
    documents: list[Any] = []
    problems: list[FieldProblem] = []
    try:
        for tree in trees(text, plain=_plain, max_depth=MAX_DEPTH):
            documents.append(tree.value)
            problems += [FieldProblem(each.message, file=file, line=each.line) for each in tree.problems]
    except NotYaml as error:
        problems.append(FieldProblem(str(error), file=file, line=error.line))
    if problems:
        raise InvalidResource(problems)
    return documents


def write_manifests(documents: list[Any]) -> str:
    """`documents` as YAML, each as a document of its own; what is text is read as text by anybody."""
    return yaml.dump_all(
        documents,
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        default_flow_style=False,
        explicit_start=len(documents) > 1,
        width=1_000_000,
    )


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, _: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "'" if _LIKE_A_NUMBER.fullmatch(text) else "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def _plain(text: str) -> Any:
    """What a scalar without quotes means."""
    if text in _NULL:
        return None
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    if _DECIMAL.fullmatch(text):
        return int(text)
    for pattern, base in ((_OCTAL, 8), (_HEXADECIMAL, 16)):
        found = pattern.fullmatch(text)
        if found:
            return int(found[1] + found[2], base)
    return float(text) if _FLOAT.fullmatch(text) else text
