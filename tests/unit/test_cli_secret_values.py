"""Values of Secrets that a manifest refers to: read by the CLI, from the environment and from files."""

from __future__ import annotations

from pathlib import Path

import pytest

from weft.cli.manifests import read_manifests
from weft.errors import InvalidRequest, InvalidResource
from weft.model.manifest import parse_documents, parse_manifest
from weft.model.secret import Given, Reference, Source

HEAD = "apiVersion: weft.dev/v1alpha1\nkind: Secret\nmetadata: {name: llm}\nspec:\n"
TRICKY = 'a "quoted" \\ value:\t#no {comment}\n- é😀 \x85 end'


def read(tmp_path: Path, data: str, **environ: str) -> str:
    (tmp_path / "m.yaml").write_text(HEAD + data)
    return read_manifests([str(tmp_path / "m.yaml")], environ).text


@pytest.mark.parametrize(
    "data",
    [
        "  data: {before: é, key: {fromEnv: KEY}, after: x}\n",
        "  data:\n    key:\n      fromEnv: KEY # of the provider\n\n    after: x\n",
        "  data:\n    key:\n      {\n        fromEnv:\n          KEY\n      }\n    after: x\n",
        '  data: {"key": {"fromEnv": "KEY"}, "after": "x"}\n',
        "  data:\n    after: x\n    key:\n      fromEnv: KEY",
    ],
)
def test_a_value_comes_from_the_environment_as_it_is_and_no_line_moves(tmp_path: Path, data: str) -> None:
    marker = "\n---\napiVersion: weft.dev/v1alpha1\nkind: Agent\nmetadata: {name: a}\nspec: {}\n"
    text = read(tmp_path, data + marker, KEY=TRICKY)
    secret, agent = parse_documents(text)
    assert read_manifests([str(tmp_path / "m.yaml")], {"KEY": TRICKY}).variables == {"KEY"}
    assert secret.resource.spec.data["key"] == Given(TRICKY)
    assert secret.resource.spec.data["after"] == Given("x")
    assert agent.lines == parse_documents(HEAD + data + marker)[1].lines


def test_a_value_comes_from_a_file_beside_the_manifest_without_the_line_break_at_its_end(
    tmp_path: Path,
) -> None:
    (tmp_path / "key").write_text("value\n")
    [secret] = parse_manifest(read(tmp_path, "  data: {key: {fromFile: ./key}}\n"))
    assert secret.spec.data["key"] == Given("value")


def test_every_value_that_is_not_there_is_named_by_file_line_and_field(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "bytes").write_bytes(b"\xff")
    names = {
        "a": "{fromEnv: NOT_SET}",
        "b": "{fromFile: none}",
        "c": "{fromFile: empty}",
        "d": "{fromFile: .}",
    }
    data = "".join(f"    {key}: {value}\n" for key, value in {**names, "e": "{fromFile: bytes}"}.items())
    with pytest.raises(InvalidResource) as caught:
        read(tmp_path, f"  data:\n{data}")
    told = [str(each).removeprefix(f"{tmp_path}/m.yaml:") for each in caught.value.problems]
    assert told[0] == "6: spec.data.a: the environment variable NOT_SET is not set"
    assert [each.partition(": ")[0] for each in told] == ["6", "7", "8", "9", "10"]


def test_a_reference_stays_one_where_values_are_of_no_use_and_other_kinds_are_left_alone(
    tmp_path: Path,
) -> None:
    (tmp_path / "m.yaml").write_text(f"{HEAD}  data: {{key: {{fromEnv: KEY}}}}\n")
    [secret] = parse_manifest(read_manifests([str(tmp_path / "m.yaml")]).text)
    assert secret.spec.data["key"] == Reference(Source.ENVIRONMENT, "KEY")
    other = "kind: Agent\nspec: {data: {key: {fromEnv: KEY}}}\n"
    (tmp_path / "m.yaml").write_text(other)
    assert read_manifests([str(tmp_path / "m.yaml")], {}).text == other


def test_what_is_no_yaml_is_left_for_others_to_tell_of(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"m\.yaml"):
        parse_manifest(read(tmp_path, "  data: {key: {fromEnv: KEY}"), "m.yaml")
