"""`weft up`: a mesh on this machine."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from weft.cli.detach import PipeReporter, start_detached
from weft.cli.exit_codes import ExitCode
from weft.cli.hosting import Reporter, host
from weft.cli.manifests import NO_MANIFESTS, read_manifests
from weft.cli.options import DEFAULT_MANIFEST, MeshOption, Output, OutputOption
from weft.cli.progress import TerminalReporter
from weft.errors import InvalidRequest, MeshError
from weft.local.mesh import START_TIMEOUT, LocalMesh
from weft.local.ports import DEFAULT_PORT_BASE, ports_from
from weft.model.local_state import MeshPorts, mesh_directory, mesh_name


def up(
    file: Annotated[
        Path | None,
        Parameter(help="Manifest to start with (default: mesh.yaml, if it is here).", show_default=False),
    ] = None,
    /,
    *,
    detach: Annotated[
        bool,
        Parameter(
            name=["--detach", "-d"], help="Return as soon as all is healthy.", negative="", show_default=False
        ),
    ] = False,
    fresh: Annotated[
        bool, Parameter(help="Forget the resources of earlier runs.", negative="", show_default=False)
    ] = False,
    port_base: Annotated[
        int,
        Parameter(
            help="API, xDS, NATS, door, dashboard and metrics listen here and at the next five ports; "
            "0: any free ones."
        ),
    ] = DEFAULT_PORT_BASE,
    timeout: Annotated[
        float, Parameter(help="Seconds that the agents have to become healthy.")
    ] = START_TIMEOUT,
    mesh: MeshOption = None,
    output: OutputOption = Output.TABLE,
    report_to: Annotated[int | None, Parameter(show=False)] = None,
) -> ExitCode:
    """Start a mesh on this machine: NATS, a control plane, and a door for scripts.

    The agents of the manifest that have a `run` block are started too, and kept running; `weft apply` changes
    them meanwhile. Ctrl-C drains and stops everything, a second one hurries.

    Where no ModelPool is declared, there is one for all models: of HolySheep if HOLYSHEEP_API_KEY is set, of
    OpenAI if OPENAI_API_KEY is, else of a simulator, `weft llm-sim`.
    """
    if timeout <= 0:
        raise InvalidRequest("--timeout must be more than 0 seconds")
    name = mesh or mesh_name(os.environ)
    directory = mesh_directory(os.environ, name)
    manifest = file or (DEFAULT_MANIFEST if DEFAULT_MANIFEST.is_file() else None)
    if detach:
        arguments = [f"--mesh={name}", f"--port-base={port_base}", f"--timeout={timeout}"]
        arguments += ["--fresh"] if fresh else []
        arguments += [f"./{manifest}" if not manifest.is_absolute() else str(manifest)] if manifest else []
        return start_detached(arguments, directory, as_json=output is Output.JSON)
    reporter = _reporter(report_to, as_json=output is Output.JSON)
    try:
        return _host(directory, manifest, ports_from(port_base), reporter, fresh=fresh, timeout=timeout)
    except MeshError as error:
        reporter.failed(error)
        raise


def _reporter(report_to: int | None, *, as_json: bool) -> Reporter:
    return TerminalReporter(as_json=as_json) if report_to is None else PipeReporter(report_to)


def _host(
    directory: Path,
    manifest: Path | None,
    ports: MeshPorts,
    reporter: Reporter,
    *,
    fresh: bool,
    timeout: float,
) -> ExitCode:
    manifests = read_manifests([str(manifest)], os.environ) if manifest else NO_MANIFESTS
    mesh = LocalMesh(
        directory,
        ports=ports,
        manifest=manifests.text,
        manifest_file=manifests.name,
        working_directory=_directory_of(manifest),
        environ={name: value for name, value in os.environ.items() if name not in manifests.variables},
        fresh=fresh,
        default_models=True,
        on_child=reporter.child,
        on_line=reporter.line,
    )
    with manifests.located():
        return asyncio.run(host(mesh, reporter, timeout=timeout))


def _directory_of(manifest: Path | None) -> Path | None:
    """What relative paths in a manifest are relative to."""
    if manifest is None:
        return None
    return manifest if manifest.is_dir() else manifest.parent
