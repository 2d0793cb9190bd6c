"""What every check can do."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from weft.demo.findings import Finding


class Check(Protocol):
    """One tool at work on one tree."""

    async def findings(self, path: Path) -> list[Finding]:
        """What the tool finds in the file at `path`. Raises Unreadable if it cannot check it."""
        ...
