"""Spans of the mesh, as this replica takes them in, keeps them and tells of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import grpc

from weft.controlplane.access_logs import LogReader


class Spans:
    """All that a replica does with spans."""

    @property
    def services(self) -> Sequence[grpc.GenericRpcHandler[bytes, bytes]]:
        """What the gRPC server that sidecars know is to serve."""
        return []

    @property
    def logs(self) -> Mapping[str, LogReader]:
        """The access logs that it reads, by name."""
        return {}

    async def run(self) -> None:
        """Share spans with other replicas, and forward them, for ever."""
