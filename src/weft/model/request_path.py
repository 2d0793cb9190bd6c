"""Paths of requests: which of them mean the same to everybody."""

from __future__ import annotations

import re
from typing import Final

RULE_PATH: Final = r"^/[A-Za-z0-9._~!$&'()+,=:@/-]*\*?$"
"""What a rule may name: a path of characters that need no escape, or such a prefix and `*`."""

# Of what could stand there itself or means something in a path or after it, of controls, or of an escape.
_NEEDLESS: Final = (
    "%(2[1346-9A-Fa-f]|3[0-9ABDFabdf]|4[0-9A-Fa-f]|5[0-9ACFacf]|6[1-9A-Fa-f]|7[0-9AEFaef]|[01]|25[0-9A-Fa-f])"
)
_NO_UTF8: Final = "%([Cc][01]|[Ee]0%[89])"
_NO_ESCAPE: Final = "%([!-/:-@G-`g-~]|[0-9A-Fa-f][!-/:-@G-`g-~]|.?$)"
_DOTS: Final = r"/\.\.?(/|$)"

AMBIGUOUS_PATHS: Final = (
    rf".*(;|\\|//|{_DOTS}|{_NO_ESCAPE}).*",
    rf".*({_NEEDLESS}|{_NO_UTF8}).*",
)
"""Regular expressions (RE2) for paths that are not in normal form: agents may read them in several ways.

Empty, `.` and `..` segments, backslashes, path parameters (`/admin;x`), and escapes that are needless,
broken, of controls, slashes or escapes, or in overlong UTF-8. Where paths decide who may call, these are not
taken.
"""

_AMBIGUOUS = [re.compile(each) for each in AMBIGUOUS_PATHS]


def is_ambiguous(path: str) -> bool:
    """Whether agents may read a path, which is without its query, in several ways."""
    return any(each.fullmatch(path) for each in _AMBIGUOUS)
