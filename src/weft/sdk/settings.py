"""What an agent says of itself, and the limits it keeps."""

from __future__ import annotations

from dataclasses import dataclass

from weft.errors import InvalidRequest
from weft.model.names import check_name, check_type
from weft.sdk.wire import MAX_REQUEST_BYTES


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """Checked when made; raises InvalidRequest."""

    type: str
    capabilities: frozenset[str] = frozenset()
    version: str = ""
    concurrency: int = 8
    """Requests in flight at once; those beyond are refused, so that the mesh tries another instance."""
    max_body_bytes: int = MAX_REQUEST_BYTES
    """Largest request body, in bytes."""
    drain_timeout: float = 30.0
    """Seconds that requests in flight have to finish when the agent stops."""
    propagate: bool = True
    """Whether calls that its handlers make by other HTTP clients than Mesh pass on what their own brought."""

    def __post_init__(self) -> None:
        check_type(self.type)
        for capability in self.capabilities:
            check_name(capability, "capability")
        if self.concurrency < 1:
            raise InvalidRequest(f"concurrency is at least 1, not {self.concurrency}")
