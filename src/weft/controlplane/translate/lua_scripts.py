"""Lua for Envoy: the scripts in `lua/`, behind what they need to know."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.resources import files
from types import ModuleType

Value = str | int | bool | None
Table = Mapping[str, Value]


def script(prelude: str, *names: str) -> str:
    """The scripts of these names, one after the other, behind `prelude`."""
    texts = (files(__package__).joinpath("lua", f"{each}.lua").read_text() for each in names)
    return "\n".join([prelude, *texts])


def constants(module: ModuleType, *names: str) -> dict[str, Value]:
    """Constants of `module` that scripts know by the same names."""
    return {each: getattr(module, each) for each in names}


def table(values: Table) -> str:
    """A table of Lua's; it has no members for those that are None."""
    fields = ",".join(f"{key}={_literal(value)}" for key, value in values.items() if value is not None)
    return f"{{{fields}}}"


def quoted(text: str) -> str:
    """A string of Lua, in which nothing stands for itself that could mean anything."""
    escaped = re.sub(rb"[^0-9A-Za-z_:/=-]", lambda found: b"\\%03d" % found[0][0], text.encode())
    return f'"{escaped.decode()}"'


def _literal(value: Value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return quoted(value) if isinstance(value, str) else str(value)
