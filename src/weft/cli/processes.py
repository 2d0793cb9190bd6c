"""`weft control` and `weft sidecar`: this process becomes the one that was asked for."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Annotated, NoReturn

from cyclopts import Parameter

Passed = Annotated[str, Parameter(allow_leading_hyphen=True)]


def control(*arguments: Passed) -> NoReturn:
    """Run a control plane: API and xDS over a NATS server. `weft control --help` lists its options."""
    become("weft.controlplane", arguments)


def sidecar(*arguments: Passed) -> NoReturn:
    """Run a sidecar, and beside it a program. `weft sidecar --help` lists its options."""
    become("weft.sidecar", arguments)


def become(module: str, arguments: Sequence[str], environ: Mapping[str, str] = os.environ) -> NoReturn:
    """Replace this process by one that runs `module`: signals reach it, and its exit code is this one's."""
    sys.stdout.flush()
    command = [sys.executable, "-m", module, *arguments]
    os.execve(sys.executable, command, environ)  # noqa: S606 -- no shell is wanted
