"""Options that many commands share."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter


class Output(StrEnum):
    """How results are shown."""

    TABLE = "table"
    JSON = "json"


OutputOption = Annotated[Output, Parameter(name=["--output", "-o"], help="How to show results.")]

MeshOption = Annotated[
    str | None,
    Parameter(name="--mesh", help="Which mesh on this machine (default: $WEFT_MESH, or `default`)."),
]

InstanceOption = Annotated[str | None, Parameter(name="--id", help="Name of the instance (default: drawn).")]

NatsOption = Annotated[
    str | None, Parameter(help="NATS servers, URL,... (default: $WEFT_NATS, or the mesh's here).")
]

XdsOption = Annotated[
    str | None, Parameter(help="Control planes, HOST:PORT,... (default: $WEFT_XDS, or the mesh's here).")
]

LogLevelOption = Annotated[str | None, Parameter(help="debug, info, warning or error.")]

FileOption = Annotated[
    tuple[str, ...],
    Parameter(
        name=["--file", "-f"],
        help="A manifest, a directory of manifests (*.yaml, *.yml, *.json), or - for standard input.",
        negative="",
        show_default=False,
        allow_leading_hyphen=True,
    ),
]


@Parameter(name="*")
@dataclass(frozen=True)
class ControlPlane:
    """Which control plane is meant."""

    mesh: MeshOption = None
    api: Annotated[
        str | None,
        Parameter(help="Address of a control plane's API (default: $WEFT_API, or that of the mesh here)."),
    ] = None
    token_file: Annotated[
        Path | None,
        Parameter(
            help="File with your token (default: that of the mesh here; else $WEFT_TOKEN_FILE, $WEFT_TOKEN)."
        ),
    ] = None
    ca_file: Annotated[
        Path | None,
        Parameter(help="Roots that vouch for it (PEM; default: those of the mesh here; else $WEFT_CA_FILE)."),
    ] = None


DEFAULT_MANIFEST = Path("mesh.yaml")
"""What `weft up` starts with if it is there and no other is named."""
