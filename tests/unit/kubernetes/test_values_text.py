"""Values as people give them: files and single ones, the later ones win."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from weft.cli.main import run
from weft.errors import InvalidRequest, InvalidResource
from weft.kubernetes.values_text import assignment, merged, read_values_file


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nats.replicas=1", {"nats": {"replicas": 1}}),
        ("image.tag='1.0'", {"image": {"tag": "1.0"}}),
        ("image.digest=sha256:0", {"image": {"digest": "sha256:0"}}),
        ("a=b=c", {"a": "b=c"}),
        ("a=", {"a": ""}),
        ("gateways.public={}", {"gateways": {"public": {}}}),
        ("controller.secretsIn=[agents, tools]", {"controller": {"secretsIn": ["agents", "tools"]}}),
        (r"nodeSelector.kubernetes\.io/os=linux", {"nodeSelector": {"kubernetes.io/os": "linux"}}),
    ],
)
def test_a_single_value_is_a_path_and_yaml(text: str, said: Any) -> None:
    assert assignment(text) == said


@pytest.mark.parametrize(
    "text", ["", "a", "=b", ".a=b", "a..b=c", "a.=b", "a=[", "a=&x 1", "a." * 16 + "a=b"]
)
def test_what_says_nothing_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="--set"):
        assignment(text)


def test_later_ones_win_and_mappings_go_together() -> None:
    given: list[dict[str, Any]] = [{"a": {"b": 1, "c": [1, 2]}, "d": 1}, {"a": {"c": [3]}}, {"d": {"e": 2}}]
    assert merged(given) == {"a": {"b": 1, "c": [3]}, "d": {"e": 2}}


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n"])
def test_an_empty_file_says_nothing(text: str) -> None:
    assert read_values_file(text, "values.yaml") == {}


@pytest.mark.parametrize(
    ("text", "problem"), [("[]", "values are a mapping"), ("a: 1\n---\nb: 2\n", "more than one document")]
)
def test_a_file_that_is_no_mapping_is_refused(text: str, problem: str) -> None:
    with pytest.raises(InvalidResource, match=problem):
        read_values_file(text, "values.yaml")


def test_render_takes_files_and_single_values(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.write_text("image: {tag: '1.0'}\nnats: {replicas: 1}\n")
    second.write_text("image: {registry: registry.example}\n")
    arguments = ["--values", str(first), "-f", str(second), "--set", "nats.replicas=5", "--no-crds"]
    assert run(["kubernetes", "render", "--no-create-namespace", *arguments]) == 0
    documents = [*yaml.safe_load_all(capsys.readouterr().out)]
    [nats] = [each for each in documents if each["kind"] == "StatefulSet"]
    assert nats["spec"]["replicas"] == 5
    assert nats["spec"]["template"]["spec"]["containers"][0]["image"] == "registry.example/weft:1.0"
    assert {"Namespace", "CustomResourceDefinition"}.isdisjoint(each["kind"] for each in documents)


def test_what_is_wrong_with_values_is_told_and_nothing_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["kubernetes", "render", "--set", "nats.replica=1"]) == 2
    written = capsys.readouterr()
    assert written.out == ""
    assert "nats.replica: there is no field 'replica' here; did you mean 'replicas'?" in written.err
