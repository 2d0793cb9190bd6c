"""Who calls a gateway."""

from __future__ import annotations

from dataclasses import dataclass

from weft.model.gateway import Rate
from weft.model.spiffe import SpiffeId

ANONYMOUS = "anonymous"
"""What stands for callers without key or token in the name of a submitter."""


KEY_PREFIX = "key:"
JWT_PREFIX = "jwt:"


@dataclass(frozen=True, slots=True)
class Outsider:
    """A caller from outside the mesh."""

    submitter: str
    """What it is called in the tasks that it submits: `<gateway>/key:<name>`, `<gateway>/anonymous` or
    `<gateway>/jwt:<subject>@<issuer>`."""
    rate: Rate
    anonymous: bool = False
    queues: tuple[str, ...] | None = None
    """Queues that it may use; None: all that the gateway offers."""
    agents: tuple[str, ...] | None = None
    """Agent types that it may call; None: all that the gateway offers."""
    topics: tuple[str, ...] | None = None
    """Topics that it may publish to; None: all."""
    sees_all: bool = False
    """Whether it sees the tasks of others too."""
    expires_at: float | None = None
    """Seconds since 1970, after which its credential is good no more."""
    key: str = ""
    """The SHA-256 of its API key, if it has shown one."""


@dataclass(frozen=True, slots=True)
class Insider:
    """A member of the mesh, whom the Envoy beside this gateway has identified."""

    id: SpiffeId

    @property
    def submitter(self) -> str:
        """What it is called in the tasks that it submits."""
        return str(self.id)


Caller = Outsider | Insider


def gateway_of(submitter: str) -> str | None:
    """The gateway by which `submitter` came from outside; None for members of the mesh and operators."""
    gateway, slash, name = submitter.partition("/")
    outside = slash and (name == ANONYMOUS or name.startswith((KEY_PREFIX, JWT_PREFIX)))
    return gateway if outside else None
