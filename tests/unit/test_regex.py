"""Which regular expressions are admitted."""

from __future__ import annotations

import pytest

from weft.model.regex import MAX_REGEX_LENGTH, check_regex


@pytest.mark.parametrize(
    "pattern",
    [
        "/v[0-9]+/rpc",
        r"/[^/]+/users/\d{1,9}(/.*)?",
        "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
        "(?:a|b)*?c",
        "(?P<name>[a-z]+)",
        "(?i)yes",
        r"^/a\.b$",
        r"[\w.-]+@[\w.-]+",
        "",
    ],
)
def test_what_re2_supports_is_admitted(pattern: str) -> None:
    assert check_regex(pattern) == pattern


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("a(?=b)", r"invalid perl operator"),
        ("a(?!b)", r"invalid perl operator"),
        ("(?>a)", r"invalid perl operator"),
        (r"(a)\1", "invalid escape sequence"),
        (r"a\Z", "invalid escape sequence"),
        ("a**", "bad repetition operator"),
        ("*a", "no argument for repetition operator"),
        ("(a", "missing \\)"),
        ("[z-a]", "invalid character class range"),
        ("a{1001}", "invalid repetition size"),
        ("[0-9a-f]{64}", "too complex: 132"),
        ("((a{9}){9}){9}", "too complex"),
        (r"\pL", "too complex"),
        ("é", "printable ASCII"),
        ("a\n", "printable ASCII"),
        ("a" * (MAX_REGEX_LENGTH + 1), "longer than 256"),
    ],
)
def test_what_envoy_could_refuse_is_refused(pattern: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        check_regex(pattern)
