"""The Lua that Envoy runs for calls to models."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from weft.controlplane.translate.llm_lease import NO_POOL
from weft.controlplane.translate.lua_scripts import Table, constants, script, table
from weft.controlplane.translate.replies import DESTINATION_HEADER
from weft.model import llm_wire

REQUEST_METADATA = "weft.llm.request"
"""Namespace of what the listener's script leaves for that of the providers: paths, places in the body."""

_NAMES = constants(
    llm_wire,
    "LLM_HOST",
    "METADATA",
    "NEVER_LEASED",
    "MODEL_HEADER",
    "POOL_HEADER",
    "TENANT_HEADER",
    "ENDPOINT_HEADER",
    "STREAM_HEADER",
    "PROMPT_HEADER",
    "OUTPUT_HEADER",
    "TOKENS_HEADER",
    "PREFIX_HEADER",
    "PROVIDER_HEADER",
    "CONTEXT_HEADER",
    "KEY_HEADER",
    "DEADLINE_HEADER",
    "BUDGET_HEADER",
    "ASK_HEADER",
    "CALL_HEADER",
    "PLACE_HEADER",
)


@cache
def listener_script() -> str:
    """Reads requests, and looks at answers."""
    return script(_wire(), "json", "errors", "llm_request", "llm_answer")


@cache
def stream_script() -> str:
    """Knows again, behind the stream guard, what the listener's script has read."""
    return script(_wire(), "llm_stream")


def provider_script(providers: Sequence[Table]) -> str:
    """Adapts a request to the provider of each attempt: they stand in the order in which they are tried."""
    tried = ",".join(table(each) for each in providers)
    return script(f"{_wire()}\nlocal providers = {{{tried}}}", "llm_provider")


def _wire() -> str:
    own = {
        "REQUEST_METADATA": REQUEST_METADATA,
        "DESTINATION_HEADER": DESTINATION_HEADER,
        "NO_POOL": NO_POOL,
    }
    return f"local wire = {table({**_NAMES, **own})}"
