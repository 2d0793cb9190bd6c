"""Where temporary files go."""

from __future__ import annotations

import os
from pathlib import Path

_ANYWAY = "/tmp"  # noqa: S108 -- what is made in it is its maker's alone


def temporary_parent() -> Path:
    """$TMPDIR if that can be written, otherwise /tmp.

    tempfile chooses by writing a file there first, which stays if the process is killed in that moment.
    """
    wanted = os.environ.get("TMPDIR") or _ANYWAY
    return Path(wanted if os.access(wanted, os.W_OK | os.X_OK) else _ANYWAY).absolute()
