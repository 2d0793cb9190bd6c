"""Paths of requests, in the one form in which rules are held against them."""

from __future__ import annotations

import re
from typing import Final

RULE_PATH: Final = r"^/[A-Za-z0-9._~!$&'()+,=:@/-]*\*?$"
"""What a rule may name: a path of characters that need no escape, or such a prefix and `*`."""

_NEEDLESS: Final = r"%(2[1346-9A-Fa-f]|3[0-9AaBbDdFf]|4[0-9A-Fa-f]|5[0-9AaCcFf]|6[1-9A-Fa-f]|7[0-9AaEe])"
_CONTROL: Final = r"%([01][0-9A-Fa-f]|7[Ff])"
_TWICE: Final = r"%25[0-9A-Fa-f][0-9A-Fa-f]"
_OVERLONG: Final = r"%([Cc][01]|[Ee]0%[89][0-9A-Fa-f])"

AMBIGUOUS_PATH: Final = rf".*(;|{_NEEDLESS}|{_CONTROL}|{_TWICE}|{_OVERLONG}).*"
"""A regular expression (RE2) for normalised paths that an agent may read otherwise than the mesh does.

Path parameters (`/admin;x`), and escapes of what needs none, of controls, of escapes, or in overlong UTF-8.
Where paths decide who may call, such requests are refused.
"""

_AMBIGUOUS = re.compile(AMBIGUOUS_PATH)
_REFUSED = re.compile(r"#|%2f|%5c|%00", re.IGNORECASE)
_ESCAPED_UNRESERVED = re.compile("%(2[DdEe]|3[0-9]|4[1-9A-Fa-f]|5[0-9AaFf]|6[1-9A-Fa-f]|7[0-9AaEe])")


def is_ambiguous(path: str) -> bool:
    """Whether an agent may read a normalised path otherwise than the mesh does."""
    return _AMBIGUOUS.fullmatch(path) is not None


def normalised(target: str) -> str | None:
    """The path of a request target as the callee's Envoy sees it; None if it refuses such a path (400).

    Without the query, needless escapes undone, `.` and `..` resolved, then slashes merged.
    """
    path = target.partition("?")[0]
    if not path.startswith("/") or _REFUSED.search(path):
        return None
    kept: list[str] = []
    segments = _ESCAPED_UNRESERVED.sub(_unescaped, path).replace("\\", "/").split("/")[1:]
    for each in segments:
        if each == "..":
            del kept[-1:]
        elif each != ".":
            kept.append(each)
    if segments[-1] in {".", ".."}:
        kept.append("")
    return re.sub("/+", "/", "/" + "/".join(kept))


def _unescaped(escape: re.Match[str]) -> str:
    return chr(int(escape[1], 16))
