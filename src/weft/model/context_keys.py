"""How what is kept of conversations is called in NATS: keys of one bucket, by tenant and conversation.

Who may do what in NATS is granted by these names: everything of a tenant is below one token.

| key | what |
|---|---|
| `<tenant>.<context>.h` | head: since when, until when, within which limits; the current generation |
| `<tenant>.<context>.<generation>.m.<n>` | message n, from 1, without gaps |
| `<tenant>.<context>.<generation>.s` | state |
| `<tenant>.<context>.<generation>.l` | list of artifacts |
| `<tenant>.<context>.<generation>.a.<token>.<n>` | chunk n of an artifact, from 0 |

The generation is new with every beginning, so what is left of a context that was deleted, or that expired,
never gets into another of the same id.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass

from weft.errors import InvalidRequest

CONTEXTS_BUCKET = "contexts"

MAX_ID_LENGTH = 8192
"""Characters of a context's id."""

_PLAIN = re.compile(r"[-_A-Za-z0-9]{1,128}")
_HASHED = "h_"
_OUTSIDE = "o_"


def new_context_id() -> str:
    """An id that nobody guesses: 128 random bits."""
    return secrets.token_hex(16)


def check_context_id(context_id: str) -> str:
    """Return `context_id` if a context may be called so: by any text that is not too long.

    Raises InvalidRequest.
    """
    if 0 < len(context_id) <= MAX_ID_LENGTH:
        return context_id
    raise InvalidRequest(
        f"the id of a context has 1 to {MAX_ID_LENGTH} characters, not {len(context_id)}: "
        "leave it out for one that nobody has"
    )


def outside_context_id(caller: str, context_id: str) -> str:
    """What a context is called in the mesh that `caller`, from outside of it, calls `context_id`.

    So nobody from outside names a context of the mesh's own, or of another caller, whatever they say.
    `caller` is what a gateway calls it in the tasks that it submits.
    """
    named = f"{len(caller)}:{caller}{context_id}".encode("utf-8", "surrogatepass")
    return _OUTSIDE + hashlib.sha256(named).hexdigest()[:32]


def key_token(text: str) -> str:
    """The token of a key that stands for `text` and for no other text."""
    if _PLAIN.fullmatch(text) and not text.startswith(_HASHED):
        return text
    return _HASHED + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def tenant_keys(tenant: str) -> str:
    """All keys of a tenant, as NATS has it in permissions."""
    return f"{key_token(tenant)}.>"


@dataclass(frozen=True, slots=True)
class ContextKeys:
    """The keys of one context."""

    tenant: str
    id: str

    @property
    def head(self) -> str:
        """Where its head is."""
        return f"{self._prefix}.h"

    def message(self, generation: str, number: int) -> str:
        """Where a message is."""
        return f"{self._prefix}.{generation}.m.{number}"

    def state(self, generation: str) -> str:
        """Where its state is."""
        return f"{self._prefix}.{generation}.s"

    def artifacts(self, generation: str) -> str:
        """Where the list of its artifacts is."""
        return f"{self._prefix}.{generation}.l"

    def chunk(self, generation: str, token: str, number: int) -> str:
        """Where a piece of an artifact is."""
        return f"{self._prefix}.{generation}.a.{token}.{number}"

    @property
    def _prefix(self) -> str:
        return f"{key_token(self.tenant)}.{key_token(self.id)}"
