"""What a sidecar leaves for its program, so that it can use topics and queues by itself."""

from __future__ import annotations

IDENTITY_VARIABLE = "WEFT_IDENTITY_DIR"
"""Environment variable: the directory with the files below, which the sidecar replaces at every renewal."""

CREDENTIALS_FILE = "svid.pem"
"""Certificate chain, leaf first, and private key."""

NATS_ROOTS_FILE = "nats-roots.pem"
"""By which NATS is believed; empty if it is spoken to in plain text."""

NATS_SERVERS_FILE = "nats-servers"
"""URLs of NATS servers, separated by commas."""

DOOR_DIRECTORY = "door"
"""In the directory of a mesh that `weft up` runs: these files of the door, for scripts of the same user."""
