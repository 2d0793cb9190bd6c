"""The Lua that Envoy runs for calls to models: the scripts in `lua/`, behind what they need to know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files

from weft.controlplane.translate.llm_lease import NO_POOL
from weft.controlplane.translate.replies import DESTINATION_HEADER
from weft.model import llm_wire

REQUEST_METADATA = "weft.llm.request"
"""Namespace of what the listener's script leaves for that of the providers: paths, places in the body."""

Value = str | int | bool | None
Table = Mapping[str, Value]

_NAMES = {
    each: getattr(llm_wire, each)
    for each in (
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
}


@cache
def listener_script() -> str:
    """Reads requests, and looks at answers."""
    return _script(_wire(), "json", "errors", "llm_request", "llm_answer")


@cache
def stream_script() -> str:
    """Knows again, behind the stream guard, what the listener's script has read."""
    return _script(_wire(), "llm_stream")


def provider_script(providers: Sequence[Table]) -> str:
    """Adapts a request to the provider of each attempt: they stand in the order in which they are tried."""
    tried = ",".join(_table(each) for each in providers)
    return _script(f"{_wire()}\nlocal providers = {{{tried}}}", "llm_provider")


def _wire() -> str:
    names = _table(
        {
            **_NAMES,
            "REQUEST_METADATA": REQUEST_METADATA,
            "DESTINATION_HEADER": DESTINATION_HEADER,
            "NO_POOL": NO_POOL,
        }
    )
    return f"local wire = {names}"


def _script(prelude: str, *names: str) -> str:
    texts = (files(__package__).joinpath("lua", f"{each}.lua").read_text() for each in names)
    return "\n".join([prelude, *texts])


def _table(values: Table) -> str:
    fields = ",".join(f"{key}={_literal(value)}" for key, value in values.items() if value is not None)
    return f"{{{fields}}}"


def _literal(value: Value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return _quoted(value) if isinstance(value, str) else str(value)


def _quoted(text: str) -> str:
    """A string of Lua, in which nothing but letters and digits stands for itself."""
    escaped = "".join(
        chr(each) if each < 128 and chr(each).isalnum() else f"\\{each:03d}" for each in text.encode()
    )
    return f'"{escaped}"'
