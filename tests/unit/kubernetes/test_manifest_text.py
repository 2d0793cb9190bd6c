"""Manifests of a cluster as text: what kubectl reads in them, and what it would read in ours."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from weft.errors import InvalidResource
from weft.kubernetes.manifest_text import read_manifests, write_manifests


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0644", 0o644),
        ("0o17", 0o17),
        ("0x1F", 31),
        ("-12", -12),
        ("0", 0),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        ("yes", True),
        ("off", False),
        ("null", None),
        ("12:30", "12:30"),
        ("2026-11-22", "2026-11-22"),
        ("500m", "500m"),
        ("1_000", "1_000"),
        ('"0644"', "0644"),
        ("0899", 899.0),
    ],
)
def test_scalars_are_what_kubectl_takes_them_for(text: str, value: Any) -> None:
    [document] = read_manifests(f"key: {text}\n", "m.yaml")
    assert document == {"key": value}
    assert type(document["key"]) is type(value)


TRICKY = [
    *(
        "0644",
        "0o17",
        "0x1F",
        "1e3",
        "123e4567",
        "1_000",
        "12:30",
        "2026-11-22",
        "yes",
        "No",
        "y",
        "null",
        "~",
        "",
    ),
    *(
        ".5",
        "-1.",
        ".inf",
        "+.NaN",
        "= x",
        "- a",
        "a: b",
        "#x",
        "two\nlines\n",
        "trailing ",
        "\ttab",
        "é😀",
        "'",
        '"',
    ),
    *("{x}", "[x]", "*a", "&a", "!t", "%d", "@x", "`x`", "$(X)", "a" * 500, "e5", "0b1", "1,000"),
]


@pytest.mark.parametrize("text", TRICKY)
def test_text_is_text_to_whoever_reads_it(text: str) -> None:
    written = write_manifests([{"key": text, text or "empty": 1}])
    assert yaml.safe_load(written)["key"] == text
    assert read_manifests(written, "m.yaml")[0]["key"] == text


def test_text_that_another_reader_takes_for_a_number_is_quoted() -> None:
    # By YAML 1.1 as PyYAML has it these are text; kubectl's parser takes them for numbers.
    assert write_manifests([{"a": "1e3"}]) == "a: '1e3'\n"
    assert write_manifests([{"a": "0o17"}]) == "a: '0o17'\n"


def test_several_documents_stay_several_and_what_is_shared_is_written_out() -> None:
    shared = {"name": "x"}
    written = write_manifests([{"a": shared, "b": shared}, {"c": [1, 2.5, None, True]}])
    assert "&" not in written
    assert read_manifests(written, "m.yaml") == [{"a": shared, "b": shared}, {"c": [1, 2.5, None, True]}]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: &x 1\nb: *x\n", "aliases are not allowed"),
        ("a: 1\na: 2\n", "given twice"),
        ("a: [1\n", "m.yaml"),
        ("a: !!python/object:os.system x\n", "tags are not allowed"),
        ("a: \x00\n", "not allowed"),
        ("[" * 200 + "]" * 200, "nested deeper"),
    ],
)
def test_what_cannot_be_read_is_refused_by_its_line(text: str, words: str) -> None:
    with pytest.raises(InvalidResource, match=words):
        read_manifests(text, "m.yaml")
