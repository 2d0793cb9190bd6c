"""What a request says in `Prefer` (RFC 7240)."""

from __future__ import annotations

import re
from collections.abc import Iterable

_PREFERENCE = re.compile(r"""\s*([!#$%&'*+.^_`|~0-9A-Za-z-]+)\s*(?:=\s*("?)([^",;]*)\2)?\s*(?:;.*)?""")
_MAX_DIGITS = 9


def wait_preferred(values: Iterable[str]) -> int | None:
    """The seconds in `wait=N` in the values of `Prefer` headers; None without it.

    The first counts; what cannot be understood is as if it were not there, as the RFC has it.
    """
    for part in (part for value in values for part in value.split(",")):
        match = _PREFERENCE.fullmatch(part)
        if match is not None and match[1].lower() == "wait":
            seconds = (match[3] or "").strip()
            understood = seconds.isascii() and seconds.isdecimal() and len(seconds) <= _MAX_DIGITS
            return int(seconds) if understood else None
    return None
