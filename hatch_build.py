"""Puts the libraries in C into the wheel, where there is a compiler: it is then one for this platform."""

from __future__ import annotations

import runpy
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_NATIVE = Path("src", "weft", "native")


class NativeLibraries(BuildHookInterface[Any]):
    """Builds them before the wheel is packed; without a compiler it is pure, and it is said what it lacks."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling; `version` is `editable` where nothing is packed."""
        if version == "editable":
            return
        # By its file: the package that is being built is not installed here.
        builder = runpy.run_path(str(Path(self.root, _NATIVE, "build.py")))
        try:
            library = builder["build"]()
        except (OSError, RuntimeError) as error:
            self.app.display_warning(f"no stream guard: {error}")
            return
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"
        build_data["artifacts"].append(str(library.relative_to(self.root)))
