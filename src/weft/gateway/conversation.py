"""Conversations of callers from outside the mesh.

What such a caller calls a conversation is called otherwise inside: by a name that follows from the caller and
from what it said. So it always gets at the same one, but at none of the mesh's own, and at no other caller's.
"""

from __future__ import annotations

from weft.gateway.caller import Caller, Outsider
from weft.model.context_keys import outside_context_id

CONTEXT_HEADER = "x-weft-context"


def outside_context(caller: Caller, context_id: str) -> str:
    """The id in the mesh of the conversation that `caller` calls `context_id`; none if that is empty."""
    if not context_id or not isinstance(caller, Outsider):
        return context_id
    return outside_context_id(caller.submitter, context_id)
