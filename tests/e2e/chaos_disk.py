"""A disk of its own for a server, which is full whenever a test wants it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_BLOCK = 4096
_FILLING = "filling"


class SmallDisk:
    """A file system in memory, mounted at `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def fill(self) -> None:
        """Leave no room."""
        with (self.path / _FILLING).open("ab", buffering=0) as file:
            try:
                while file.write(bytes(_BLOCK)) == _BLOCK:
                    pass
            except OSError:
                pass

    def free(self) -> None:
        """Take away what fills it."""
        (self.path / _FILLING).unlink()


@contextmanager
def small_disk(path: Path, megabytes: int) -> Iterator[SmallDisk]:
    """A disk of that size at `path`; gone when the context is left. Skips the test where none can be made."""
    path.mkdir()
    if os.geteuid() != 0:
        pytest.skip("only root can mount a file system")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "weft-test", str(path)],
        check=False,
        capture_output=True,
        text=True,
        timeout=30,
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    try:
        yield SmallDisk(path)
    finally:
        # Lazily: a server that was just killed may still be on its way out.
        subprocess.run(["umount", "--lazy", str(path)], check=True, timeout=30)
