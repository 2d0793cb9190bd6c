"""Manifests from several places, applied as one."""

from __future__ import annotations

import io
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from weft.cli.manifests import MAX_BYTES, read_manifests
from weft.errors import FieldProblem, InvalidRequest, InvalidResource
from weft.model.manifest import parse_manifest

AGENT = "apiVersion: weft.dev/v1alpha1\nkind: Agent\nmetadata: {name: NAME}\nspec: {}\n"


def _write(directory: Path, **files: str) -> None:
    for name, text in files.items():
        (directory / name.replace("_", ".")).write_text(text)


def test_the_manifests_of_a_directory_are_read_in_order_of_their_names(tmp_path: Path) -> None:
    _write(
        tmp_path,
        b_yaml=AGENT.replace("NAME", "second"),
        a_yml=AGENT.replace("NAME", "first").rstrip(),
        c_json=json.dumps(yaml.safe_load(AGENT.replace("NAME", "third"))),
        notes_txt="not a manifest",
    )
    manifests = read_manifests([str(tmp_path)])
    resources = parse_manifest(manifests.text, manifests.name)
    assert [each.metadata.name for each in resources] == ["first", "second", "third"]


def test_problems_are_told_by_the_file_and_line_where_they_are(tmp_path: Path) -> None:
    _write(tmp_path, a_yaml=AGENT.replace("NAME", "fine"), b_yaml=AGENT.replace("NAME", "Not Fine"))
    manifests = read_manifests([str(tmp_path / "a.yaml"), str(tmp_path / "b.yaml")])
    with pytest.raises(InvalidResource) as caught, manifests.located():
        parse_manifest(manifests.text, manifests.name)
    [problem] = caught.value.problems
    assert (problem.file, problem.line, problem.field) == (str(tmp_path / "b.yaml"), 3, "metadata.name")


def test_a_problem_without_a_line_keeps_its_file(tmp_path: Path) -> None:
    _write(tmp_path, a_yaml=AGENT)
    manifests = read_manifests([str(tmp_path / "a.yaml")])
    with pytest.raises(InvalidResource) as caught, manifests.located():
        raise InvalidResource([FieldProblem("wrong as a whole", file="somewhere")])
    assert str(caught.value) == "somewhere: wrong as a whole"


def test_a_manifest_comes_from_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(AGENT.encode())))
    assert read_manifests(["-"]).text == AGENT


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe")
    (tmp_path / "empty").mkdir()
    (tmp_path / "huge.yaml").write_text("#" * (MAX_BYTES + 1))
    for source in ("missing.yaml", "binary.yaml", "empty", "huge.yaml"):
        with pytest.raises(InvalidRequest, match=r"missing|binary|empty|larger"):
            read_manifests([str(tmp_path / source)])
