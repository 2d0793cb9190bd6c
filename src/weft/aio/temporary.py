"""Where temporary files go."""

from __future__ import annotations

import os
from pathlib import Path


def temporary_parent() -> Path:
    """$TMPDIR, or /tmp.

    tempfile chooses by writing a file there first, which stays if the process is killed in that moment.
    """
    return Path(os.environ.get("TMPDIR") or "/tmp").absolute()  # noqa: S108 -- directories in it are made 0700
