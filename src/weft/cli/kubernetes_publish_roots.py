"""`weft kubernetes publish-roots`: the mesh's roots, where a cluster's pods find them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from weft.kubernetes.roots_publication import PUBLISHER_PORT, publish_roots
from weft.model.names import check_name
from weft.tracing.logs import start_logging


async def publish(
    *,
    file: Annotated[Path, Parameter(help="What the control plane writes: its `bundle_file`.")],
    config_map: Annotated[str, Parameter(help="Where to publish it, in the pod's namespace.")],
    listen: Annotated[str, Parameter(help="IP address for probes.")] = "0.0.0.0",  # noqa: S104 -- of a pod
    health_port: Annotated[int, Parameter(help="For probes: /livez, /readyz.")] = PUBLISHER_PORT,
) -> None:
    """In a pod of the control plane: keep a ConfigMap that is there like the file with the mesh's roots.

    They are its `roots.pem`. The pod's service account must be allowed to patch that ConfigMap, and nothing
    else.
    """
    check_name(config_map, "ConfigMap")
    start_logging("%(asctime)s %(levelname)s %(name)s: %(message)s", os.environ, agent="publish-roots")
    await publish_roots(file, config_map, host=listen, health_port=health_port)
