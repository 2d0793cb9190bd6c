"""Whatever becomes of a valid manifest, reading it ends in resources or in InvalidResource."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from weft.errors import InvalidResource
from weft.model.manifest import parse_manifest

MANIFESTS = [
    path.read_text() for path in sorted((Path(__file__).parents[1] / "fixtures" / "manifests").glob("*.yaml"))
]
FRAGMENTS = [
    *("{", "}", "[", "]", ":", ": ", "- ", "\n", "  ", "\t", "---\n", "...\n", "&a ", "*a", "!!int ", "!x "),
    *(
        "<<: ",
        "? ",
        "|\n",
        ">-\n",
        "'",
        '"',
        "#",
        "%YAML 1.1\n",
        "null",
        "~",
        "true",
        ".nan",
        "-.inf",
        "1e999",
    ),
    *("9" * 5000, "-0", "0x", "\x00", "\x85", "\u2028", "\ufeff", "\ud800", "\U0001f600", "a" * 3000, "(?="),
    *("(", "\\", "{1000}", "24h", "-1s", "0ms", "99999999999h", "x-weft-a", "host", "cap", "@", "`"),
]
ROUNDS = 250


def _mutated(text: str, chance: random.Random) -> str:
    for _ in range(chance.randint(1, 4)):
        start = chance.randrange(len(text) + 1)
        end = min(len(text), start + chance.choice([0, 0, 1, 2, 10, 80]))
        replacement = chance.choice([chance.choice(FRAGMENTS), text[end : end + chance.randrange(60)], ""])
        text = text[:start] + replacement + text[end:]
    return text


@pytest.mark.parametrize("seed", range(8))
def test_a_mutated_manifest_is_read_or_refused(seed: int) -> None:
    chance = random.Random(seed)
    told = []
    for _ in range(ROUNDS):
        text = _mutated(chance.choice(MANIFESTS), chance)
        try:
            parse_manifest(text, "m.yaml")
        except InvalidResource as error:
            told.append(error.problems)
    assert 0 < len(told) < ROUNDS
    assert all(each.message and each.file == "m.yaml" for problems in told for each in problems)
