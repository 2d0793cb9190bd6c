"""The source tree under review: which files it has, and which of them may be opened."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from weft.demo.findings import printable
from weft.errors import InvalidRequest

MAX_FILES = 5_000
"""Python files one review takes."""

MAX_FILE_BYTES = 512 * 1024
"""Size of the largest file that is checked: larger ones are generated, and take the tools minutes."""

SUFFIX = ".py"

_NOT_SOURCE = frozenset({"__pycache__", "node_modules", "site-packages"})
_ENVIRONMENT_MARK = "pyvenv.cfg"


class Unreadable(Exception):
    """A file cannot be checked; the text says why."""


class OutsideTree(Exception):
    """A name does not stand for a file of the tree."""


@dataclass(frozen=True, slots=True)
class PassedOver:
    """Something that is not reviewed."""

    file: str
    reason: str


@dataclass(frozen=True, slots=True)
class Listing:
    """The Python files of a tree."""

    files: tuple[str, ...]
    """Paths below the root, sorted."""
    passed_over: tuple[PassedOver, ...] = ()


class SourceTree:
    """A directory with Python files in it."""

    def __init__(self, root: Path) -> None:
        """Raises InvalidRequest if `root` is not a directory that can be read."""
        if not root.exists():
            raise InvalidRequest(f"{root} does not exist: name a directory with Python files in it")
        if not root.is_dir():
            raise InvalidRequest(f"{root} is not a directory: name the directory it is in")
        if not os.access(root, os.R_OK | os.X_OK):
            raise InvalidRequest(f"{root} cannot be read: permission denied")
        self.root = root.resolve()

    def listing(self) -> Listing:
        """Find the Python files, without following symbolic links.

        Hidden directories, virtual environments and installed packages are not looked into. Raises
        InvalidRequest if there are no files, or more than MAX_FILES.
        """
        files: list[str] = []
        passed_over: list[PassedOver] = []
        for path in self._walk():
            name = path.relative_to(self.root).as_posix()
            reason = _reason_to_pass_over(path)
            if reason:
                passed_over.append(PassedOver(printable(name), reason))
            else:
                files.append(name)
            if len(files) + len(passed_over) > MAX_FILES:
                raise InvalidRequest(
                    f"{self.root} has more than {MAX_FILES} Python files: name a part of it to review"
                )
        if not files:
            raise InvalidRequest(f"{self.root} has no Python files in it ({SUFFIX})")
        return Listing(tuple(sorted(files)), tuple(sorted(passed_over, key=lambda each: each.file)))

    def locate(self, name: str) -> Path:
        """The path of the file `name`, which a tool can open.

        Raises OutsideTree if `name` leads out of the tree or is no Python file, Unreadable if the file is
        gone, too large, or may not be read.
        """
        path = self.root / name
        try:
            resolved = path.resolve()
        except (ValueError, OSError, RuntimeError) as error:  # null byte, too long, a loop of links
            raise OutsideTree(f"{printable(name)!r} is no path: {error}") from error
        if path.suffix != SUFFIX or resolved != path or not resolved.is_relative_to(self.root):
            raise OutsideTree(f"{printable(name)!r} is no Python file of the tree under review")
        _check_readable(resolved)
        return resolved

    def readable(self) -> Iterator[Path]:
        """All files that `locate` would return."""
        for name in self.listing().files:
            try:
                yield self.locate(name)
            except (OutsideTree, Unreadable):
                continue

    def _walk(self) -> Iterator[Path]:
        for directory, names, files in os.walk(self.root):
            names[:] = sorted(name for name in names if _holds_source(Path(directory, name)))
            for name in files:
                if name.endswith(SUFFIX):
                    yield Path(directory, name)


def _holds_source(directory: Path) -> bool:
    return not (
        directory.name.startswith(".")
        or directory.name in _NOT_SOURCE
        or (directory / _ENVIRONMENT_MARK).exists()
    )


def _reason_to_pass_over(path: Path) -> str:
    if path.is_symlink():
        return "a symbolic link"
    if not path.is_file():
        return "not a regular file"
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return "its name is not UTF-8"
    return ""


def _check_readable(path: Path) -> None:
    try:
        status = path.stat()
    except OSError as error:
        raise Unreadable(f"it cannot be read: {error.strerror}") from error
    if not stat.S_ISREG(status.st_mode):
        raise Unreadable("it is not a regular file")
    if status.st_size > MAX_FILE_BYTES:
        raise Unreadable(f"its {status.st_size} bytes are more than the limit of {MAX_FILE_BYTES}")
    if not os.access(path, os.R_OK):
        raise Unreadable("it cannot be read: permission denied")
