"""Files that only their owner can read, or the owner's group too, replaced as a whole."""

from __future__ import annotations

import os
from pathlib import Path


def write_private(file: Path, content: bytes, *, group: bool = False) -> None:
    """Write `file`, readable by this user only; readers see the old content or the new. Raises OSError.

    With `group`, this process's group may read it, too.
    """
    draft = file.with_name(f".{file.name}.new")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        if group:
            os.fchmod(descriptor, 0o640)
        with open(descriptor, "wb") as target:  # noqa: PTH123 -- made with its mode
            target.write(content)
        draft.replace(file)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
