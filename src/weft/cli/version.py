"""`weft version`: the versions of Weft and of what it is made of."""

from __future__ import annotations

import platform
import re
import subprocess
from collections.abc import Sequence
from importlib.metadata import version as installed_version

from weft.cli.options import Output, OutputOption
from weft.cli.programs import envoy_program
from weft.cli.show import print_json
from weft.errors import Unavailable
from weft.local.nats_settings import nats_program

_TIMEOUT = 10.0
_NUMBER = re.compile(r"\d+\.\d+\.\d+")


def version(*, output: OutputOption = Output.TABLE) -> None:
    """Show the versions of Weft, Envoy, NATS and Python."""
    versions = {
        "weft": installed_version("weft"),
        "envoy": _of_program([envoy_program(), "--version"]),
        "nats": _nats_version(),
        "python": platform.python_version(),
    }
    if output is Output.JSON:
        print_json(versions)
        return
    for name, number in versions.items():
        print(f"{name:8}{number}")


def _nats_version() -> str:
    try:
        return _of_program([nats_program(), "--version"])
    except Unavailable:
        return "not installed"


def _of_program(command: Sequence[str]) -> str:
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        return f"does not run: {error}"
    found = _NUMBER.search(result.stdout)
    return found.group() if found else result.stdout.strip()
