"""`weft check`: what this machine lacks, or an installation on a cluster, in plain words."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from typing import Annotated, Final

from cyclopts import Parameter

from weft.cli.api import API_VARIABLE
from weft.cli.check_kubernetes import Installation, cluster_report
from weft.cli.exit_codes import ExitCode
from weft.cli.findings import FINDERS, Finding, Level
from weft.cli.mesh_findings import mesh_findings
from weft.cli.options import ControlPlane, Output, OutputOption
from weft.cli.show import print_json, print_table
from weft.sdk.local_mesh import running_mesh

_HERE = ControlPlane()
_THAT = Installation()


async def check(
    *,
    kubernetes: Annotated[
        bool,
        Parameter(help="Look at an installation on a cluster, not at this machine.", negative=""),
    ] = False,
    output: OutputOption = Output.TABLE,
    where: ControlPlane = _HERE,
    installation: Installation = _THAT,
) -> ExitCode:
    """Tell what this machine lacks for a mesh, and what to do about it. Exit code 1 if none can run.

    Of a mesh that runs it also says whether clocks agree, whether certificates are renewed in time, and which
    ExternalAgents are not in force.

    With `--kubernetes`, tell what an installation on a cluster lacks: definitions of custom resources, parts
    that do not run, webhooks, roots, pods without a sidecar, resources that the mesh does not have.
    """
    if kubernetes:
        findings = await cluster_report(installation, os.environ)
        if where.api:
            findings += await mesh_findings(where)
    else:
        findings = [finding for find in FINDERS for finding in find(os.environ)]
        if _is_named(where) or running_mesh(os.environ, where.mesh) is not None:
            findings += await mesh_findings(where)
    if output is Output.JSON:
        print_json([each._asdict() for each in findings])
    else:
        _print(findings, _OF_CLUSTER if kubernetes else _OF_MACHINE)
    return ExitCode.FAILED if any(each.level is Level.FAIL for each in findings) else ExitCode.OK


def _is_named(where: ControlPlane) -> bool:
    return bool(where.api or os.environ.get(API_VARIABLE))


_OF_MACHINE: Final = {
    Level.FAIL: "A mesh cannot run here yet: see the lines that say fail.",
    Level.WARN: "A mesh can run here; see the lines that say warn. Start one with `weft up`.",
    Level.OK: "All is well. Start a mesh with `weft up`.",
}
_OF_CLUSTER: Final = {
    Level.FAIL: "Something of the installation does not work: see the lines that say fail.",
    Level.WARN: "The installation works; see the lines that say warn.",
    Level.OK: "All is well.",
}


def _print(findings: Sequence[Finding], endings: Mapping[Level, str]) -> None:
    print_table(
        ("", "WHAT", "FOUND", "WHAT TO DO"),
        ((each.level, each.what, each.found, each.advice) for each in findings),
        none="nothing was checked",
    )
    found = {each.level for each in findings}
    width = shutil.get_terminal_size().columns
    print("-" * min(width, 60))
    print(endings[next(each for each in (Level.FAIL, Level.WARN, Level.OK) if each in found)])
