"""Which files of a tree are reviewed, and which may be opened."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from weft.demo import tree as tree_module
from weft.demo.tree import MAX_FILE_BYTES, OutsideTree, SourceTree, Unreadable
from weft.errors import InvalidRequest


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    root.mkdir()
    (root / "app.py").write_text("x = 1\n")
    return root


def test_python_files_are_found_in_all_directories_but_those_of_tools_and_environments(root: Path) -> None:
    for name in (
        "package/module.py",
        "package/data.txt",
        ".hidden/secret.py",
        "__pycache__/app.cpython-311.py",
        "node_modules/x/y.py",
        "environment/lib/installed.py",
        "environment/pyvenv.cfg",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()

    assert SourceTree(root).listing().files == ("app.py", "package/module.py")


def test_symbolic_links_are_passed_over_and_named(root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside.py"
    outside.touch()
    (root / "link.py").symlink_to(outside)
    (root / "linked").symlink_to(tmp_path)

    listing = SourceTree(root).listing()

    assert listing.files == ("app.py",)
    assert [(each.file, each.reason) for each in listing.passed_over] == [("link.py", "a symbolic link")]


def test_what_is_no_regular_file_or_has_no_proper_name_is_passed_over(root: Path) -> None:
    os.mkfifo(root / "pipe.py")
    Path(os.fsdecode(bytes(root) + b"/caf\xe9.py")).touch()

    listing = SourceTree(root).listing()

    assert listing.files == ("app.py",)
    assert {each.reason for each in listing.passed_over} == {"not a regular file", "its name is not UTF-8"}


def test_a_root_that_is_a_link_is_followed(root: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(root)

    tree = SourceTree(tmp_path / "link")

    assert tree.locate("app.py") == root.resolve() / "app.py"


@pytest.mark.parametrize(
    ("name", "message"), [("nowhere", "does not exist"), ("app.py", "is not a directory")]
)
def test_a_path_that_is_no_directory_is_refused(root: Path, name: str, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        SourceTree(root / name)


def test_a_tree_without_python_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "readme.txt").touch()

    with pytest.raises(InvalidRequest, match="has no Python files"):
        SourceTree(tmp_path).listing()


def test_a_tree_that_is_too_large_is_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree_module, "MAX_FILES", 2)
    for number in range(2):
        (root / f"more{number}.py").touch()

    with pytest.raises(InvalidRequest, match="more than 2 Python files"):
        SourceTree(root).listing()


@pytest.mark.parametrize(
    "name",
    [
        "../outside.py",
        "package/../../outside.py",
        "/etc/passwd",
        "/etc/hosts.py",
        "link.py",
        "linked/outside.py",
        "readme.txt",
        "app.py\0",
        "..",
    ],
)
def test_a_name_that_leads_out_of_the_tree_is_refused(root: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "outside.py").touch()
    (root / "link.py").symlink_to(tmp_path / "outside.py")
    (root / "linked").symlink_to(tmp_path)

    with pytest.raises(OutsideTree):
        SourceTree(root).locate(name)


def test_a_loop_of_links_is_refused(root: Path) -> None:
    (root / "loop").symlink_to(root / "loop")

    # Since Python 3.13 a loop is resolved to itself, and noticed only when it is opened.
    with pytest.raises((OutsideTree, Unreadable)):
        SourceTree(root).locate("loop/x.py")


def test_a_file_that_is_gone_is_unreadable(root: Path) -> None:
    with pytest.raises(Unreadable, match="No such file"):
        SourceTree(root).locate("gone.py")


def test_a_huge_file_is_unreadable_and_the_limit_is_told(root: Path) -> None:
    (root / "huge.py").write_bytes(b"#" * (MAX_FILE_BYTES + 1))

    with pytest.raises(Unreadable, match=f"limit of {MAX_FILE_BYTES}"):
        SourceTree(root).locate("huge.py")


def test_only_files_that_can_be_located_are_readable(root: Path) -> None:
    (root / "huge.py").write_bytes(b"#" * (MAX_FILE_BYTES + 1))

    assert list(SourceTree(root).readable()) == [root.resolve() / "app.py"]
