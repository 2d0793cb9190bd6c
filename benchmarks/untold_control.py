"""A control plane whose sidecars' Envoys tell nothing of calls: `python -m benchmarks.untold_control`.

What telling costs is measured against it. All else is as it is.
"""

from __future__ import annotations

import sys

from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import (
    HttpConnectionManager,
)
from envoy.extensions.http.early_header_mutation.header_mutation.v3.header_mutation_pb2 import HeaderMutation

from weft.controlplane.__main__ import main
from weft.controlplane.translate import http_listener, listeners
from weft.controlplane.translate.access_log import access_log
from weft.controlplane.translate.call_stats import call_stats
from weft.controlplane.translate.trace_logs import error_log
from weft.controlplane.translate.tracing import WANTED_HEADER


def untold(manager: HttpConnectionManager) -> None:
    """Take out of a connection manager what telemetry has put there."""
    manager.ClearField("tracing")
    telling = [*call_stats(), error_log(), *access_log()]
    kept = [each for each in manager.access_log if each not in telling]
    del manager.access_log[:]
    manager.access_log.extend(kept)
    for extension in manager.early_header_mutation_extensions:
        mutation = HeaderMutation()
        extension.typed_config.Unpack(mutation)
        others = [each for each in mutation.mutations if each.append.header.key != WANTED_HEADER]
        del mutation.mutations[:]
        mutation.mutations.extend(others)
        extension.typed_config.Pack(mutation)


def _add_manager(listener: Listener, manager: HttpConnectionManager) -> None:
    untold(manager)
    http_listener.add_manager(listener, manager)


if __name__ == "__main__":
    vars(listeners)["add_manager"] = _add_manager
    sys.exit(main(sys.argv[1:]))
