"""`weft diff`: what applying a manifest would change."""

from __future__ import annotations

import difflib
import os
from typing import Any

from rich.console import Console
from rich.text import Text

from weft.cli.api import control_api
from weft.cli.exit_codes import ExitCode
from weft.cli.manifests import read_manifests
from weft.cli.options import ControlPlane, FileOption, Output, OutputOption
from weft.cli.show import console, print_json

_HERE = ControlPlane()
_STYLES = {"+": "green", "-": "red", "@": "cyan"}


async def diff(
    *, file: FileOption = (), output: OutputOption = Output.TABLE, where: ControlPlane = _HERE
) -> ExitCode:
    """Show what applying a manifest would change. Exit code 1 if anything, else 0."""
    manifests = read_manifests(file, os.environ)
    async with control_api(where) as api:
        with manifests.located():
            differences = await api.diff(manifests.text, manifests.name)
    differing = [each for each in differences if each["before"] != each["after"]]
    if output is Output.JSON:
        print_json(differing)
    else:
        out = console()
        for each in differing:
            _print_difference(out, each)
    return ExitCode.FAILED if differing else ExitCode.OK


def _print_difference(out: Console, difference: dict[str, Any]) -> None:
    name = f"{difference['kind']}/{difference['name']}"
    before = (difference["before"] or "").splitlines()
    after = (difference["after"] or "").splitlines()
    old = f"{name} (applied)" if before else "/dev/null"
    for line in difflib.unified_diff(before, after, old, f"{name} (given)", lineterm=""):
        out.print(Text(line, style=_STYLES.get(line[0], "")))
