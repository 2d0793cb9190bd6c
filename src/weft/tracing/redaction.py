"""Secrets that anybody can tell by their looks, taken out of what is logged, recorded and kept.

The patterns are of the dialect that `re` and RE2 have in common. What they miss is for a Telemetry's own
rules.
"""

from __future__ import annotations

import re
from typing import Any, Final

REDACTED: Final = "[redacted]"
"""What stands in the place of a secret."""

MAX_DEPTH: Final = 64
"""How deep JSON values are looked into; what is deeper is redacted as a whole."""

_NAMES: Final = (
    r"passw(?:or)?ds?|passphrase|pwd|secret|client[_-]?secret|token|access[_-]?token|refresh[_-]?token"
    r"|id[_-]?token|api[_-]?key|apikey|private[_-]?key|secret[_-]?key|access[_-]?key|authorization|credentials?"
    r"|cookie|set-cookie"
)

SECRET_PATTERNS: Final = (
    # HTTP's Authorization, wherever it was written down.
    r"(?i)\b(?:bearer|basic)\s+[a-z0-9._~+/=-]{8,}",
    # Weft's own tokens and API keys.
    r"\bweft_[A-Za-z0-9_-]{8,}",
    # Keys of providers of models and of others who begin them so.
    r"\bsk-[A-Za-z0-9_-]{8,}",
    r"\b(?:ghp|gho|ghs|ghu|github_pat|glpat|xox[abprs])[_-][A-Za-z0-9_-]{16,}",
    r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b",
    # JSON Web Tokens: header and claims begin with a brace.
    r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{4,}\.[A-Za-z0-9_-]*",
    r"-----BEGIN [A-Z ]{0,24}PRIVATE KEY-----[^-]*(?:-----END [A-Z ]{0,24}PRIVATE KEY-----)?",
)
"""Regular expressions, all of whose matches are secrets."""

SECRET_FIELD: Final = rf"(?i)(?:{_NAMES})$"
"""Names of fields whose values are secrets, whatever they look like: `password`, `db_password`, `api-key`."""

HEADER_LINE: Final = r"(?i)((?:authorization|cookie)\s*:\s*)[^\s\"',;{}\[\]][^\r\n\"'{}\[\]]*"
"""A header that is a secret, unquoted: all of its line after group 1, since it can be of several parts."""

URL_PASSWORD: Final = r"(://[^/\s:@]*:)[^/\s\"']+(@)"  # noqa: S105 -- finds them
"""A URL's password, between groups 1 and 2."""

ASSIGNED: Final = (
    rf"(?i)((?:{_NAMES})[\"']?\s*[:=]\s*)"
    r"(\"(?:[^\"\\\n]|\\.)+\"|'(?:[^'\\\n]|\\.)+'|[^\s\"',;&}\]\[]+)"
)
"""The same within text: group 1 is the name and its `=` or `:`, group 2 the value."""

_PATTERNS: Final = tuple(re.compile(each) for each in SECRET_PATTERNS)
_HEADER: Final = re.compile(HEADER_LINE)
_URL: Final = re.compile(URL_PASSWORD)
_FIELD: Final = re.compile(SECRET_FIELD)
_ASSIGNED: Final = re.compile(ASSIGNED)


def redacted(text: str) -> str:
    """`text` with `[redacted]` in the places of its secrets."""
    for pattern in _PATTERNS:
        text = pattern.sub(REDACTED, text)
    text = _HEADER.sub(rf"\1{REDACTED}", text)
    text = _URL.sub(rf"\1{REDACTED}\2", text)
    return _ASSIGNED.sub(_without_value, text)


def redacted_value(value: Any, depth: int = MAX_DEPTH) -> Any:
    """The same of a JSON value: of all its texts, and of the whole of fields named like a secret."""
    if isinstance(value, str):
        return redacted(value)
    if not isinstance(value, dict | list | tuple):
        return value
    if not depth:
        return REDACTED
    if isinstance(value, dict):
        return {
            name: REDACTED if is_secret(str(name)) else redacted_value(each, depth - 1)
            for name, each in value.items()
        }
    return [redacted_value(each, depth - 1) for each in value]


def is_secret(name: str) -> bool:
    """Whether a field of that name holds a secret."""
    return _FIELD.search(name) is not None


def _without_value(found: re.Match[str]) -> str:
    # The quotes stay, so that what was JSON still is.
    value = found[2]
    quote = value[0] if value[0] in "\"'" else ""
    return f"{found[1]}{quote}{REDACTED}{quote}"
