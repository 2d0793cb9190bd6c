"""The NATS subjects that belong to one identity: what it may use is granted by these names."""

from __future__ import annotations

from weft.model.spiffe import SpiffeId

INBOX = "_INBOX"

DRAIN_SIGNALS = "drain"
"""Name of the signals by which the control plane has an instance leave; their keys are the instances'."""


def identity_subject(identity: SpiffeId) -> str:
    """Tokens that stand for `identity` in subjects: `agent.<type>.<id>`, `operator.<name>.<id>`."""
    # A dot in a segment would make two tokens of it.
    return ".".join(segment.replace(".", "_") for segment in identity.segments)


def inbox_prefix(identity: SpiffeId) -> str:
    """Where answers to requests of `identity` go, which nobody else may read."""
    return f"{INBOX}.{identity_subject(identity)}"
