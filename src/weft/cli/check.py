"""`weft check`: what this machine lacks, in plain words."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence

from weft.cli.api import API_VARIABLE
from weft.cli.exit_codes import ExitCode
from weft.cli.findings import FINDERS, Finding, Level
from weft.cli.mesh_findings import mesh_findings
from weft.cli.options import ControlPlane, Output, OutputOption
from weft.cli.show import print_json, print_table
from weft.sdk.local_mesh import running_mesh

_HERE = ControlPlane()


async def check(*, output: OutputOption = Output.TABLE, where: ControlPlane = _HERE) -> ExitCode:
    """Tell what this machine lacks for a mesh, and what to do about it. Exit code 1 if none can run.

    Of a mesh that runs it also says whether clocks agree, whether certificates are renewed in time, and which
    ExternalAgents are not in force.
    """
    findings = [finding for find in FINDERS for finding in find(os.environ)]
    if _is_named(where) or running_mesh(os.environ, where.mesh) is not None:
        findings += await mesh_findings(where)
    if output is Output.JSON:
        print_json([each._asdict() for each in findings])
    else:
        _print(findings)
    return ExitCode.FAILED if any(each.level is Level.FAIL for each in findings) else ExitCode.OK


def _is_named(where: ControlPlane) -> bool:
    return bool(where.api or os.environ.get(API_VARIABLE))


def _print(findings: Sequence[Finding]) -> None:
    print_table(
        ("", "WHAT", "FOUND", "WHAT TO DO"),
        ((each.level, each.what, each.found, each.advice) for each in findings),
        none="nothing was checked",
    )
    worst = {each.level for each in findings}
    width = shutil.get_terminal_size().columns
    print("-" * min(width, 60))
    if Level.FAIL in worst:
        print("A mesh cannot run here yet: see the lines that say fail.")
    elif Level.WARN in worst:
        print("A mesh can run here; see the lines that say warn. Start one with `weft up`.")
    else:
        print("All is well. Start a mesh with `weft up`.")
