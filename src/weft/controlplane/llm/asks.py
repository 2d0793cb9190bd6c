"""What Envoy asks about a call, read strictly."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from weft.controlplane.llm.call import Call
from weft.controlplane.llm.call_ids import is_of, new_call_id
from weft.controlplane.llm.peers import Peer
from weft.errors import InvalidRequest
from weft.model.call_budget import WHOLE_TREE, BudgetLimit, parse_budget
from weft.model.llm_wire import (
    BUDGET_HEADER,
    CALL_HEADER,
    CLASS_HEADER,
    CONTEXT_HEADER,
    DEADLINE_HEADER,
    KEY_HEADER,
    METADATA,
    MODEL_HEADER,
    OUTPUT_HEADER,
    POOL_HEADER,
    PREFIX_HEADER,
    PROMPT_HEADER,
    PROVIDER_HEADER,
    STREAM_HEADER,
    TENANT_HEADER,
)
from weft.model.model_pool import ModelPool
from weft.model.service_class import ServiceClass

MAX_VALUE_LENGTH: Final = 256
"""Characters of a header by which calls are told apart."""

MAX_COUNT: Final = 10**9
"""The largest number of tokens or bytes that is believed."""

BYTES_PER_TOKEN: Final = 4
"""Of a prompt's request, roughly."""

TRACE_HEADER: Final = "traceparent"

_WANTED = frozenset(
    {
        BUDGET_HEADER,
        CALL_HEADER,
        CLASS_HEADER,
        CONTEXT_HEADER,
        DEADLINE_HEADER,
        KEY_HEADER,
        MODEL_HEADER,
        OUTPUT_HEADER,
        POOL_HEADER,
        PREFIX_HEADER,
        PROMPT_HEADER,
        STREAM_HEADER,
        TENANT_HEADER,
        TRACE_HEADER,
    }
)

_IN_METADATA = {
    "call": CALL_HEADER,
    "model": MODEL_HEADER,
    "pool": POOL_HEADER,
    "tenant": TENANT_HEADER,
    "context": CONTEXT_HEADER,
    "key": KEY_HEADER,
    "stream": STREAM_HEADER,
    "prompt": PROMPT_HEADER,
    "output": OUTPUT_HEADER,
}
"""What is known of a call even where its headers are those of a provider already: in further attempts."""

_TRACE = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")
_NO_TRACE = "0" * 32


@dataclass(frozen=True, slots=True)
class Asked:
    """A call as Envoy tells of it."""

    headers: Mapping[str, str]
    """By name, in lower case; only those that matter."""
    provider: str = ""
    """Where it is about to go, if it failed elsewhere; empty: it has not gone anywhere yet."""

    @property
    def pool(self) -> str:
        """Which pool it is for."""
        return self.headers.get(POOL_HEADER, "")


def asked(request: Any, metadata: Iterable[tuple[str, str | bytes]]) -> Asked:
    """What a ProcessingRequest about headers tells, and the gRPC `metadata` of its stream.

    By that Envoy says which provider a further attempt is for. Of such an attempt the headers are those that
    the provider gets already: what is known of the call is in the dynamic metadata.
    """
    headers = {}
    for each in request.request_headers.headers.headers:
        if each.key in _WANTED:
            headers[each.key] = each.raw_value.decode("latin-1") if each.raw_value else each.value
    said = dict(metadata)
    if POOL_HEADER in headers and PROVIDER_HEADER not in said:
        return Asked(headers)
    headers.update(_from_metadata(request))
    headers[POOL_HEADER] = str(said.get(POOL_HEADER, ""))
    return Asked(headers, str(said.get(PROVIDER_HEADER, "")))


def call_of(asked: Asked, peer: Peer, pool: ModelPool, now: float) -> Call:
    """The call that is asked about, which came through `peer` at `now`.

    Raises InvalidRequest, saying which header makes no sense.
    """
    headers = asked.headers
    tenant = headers.get(TENANT_HEADER) if pool.spec.scheduling.tenant_header is not None else None
    whole, branches = _budget(headers)
    call_id = call_id_of(asked, peer) or new_call_id(peer.sidecar)
    return Call(
        id=call_id,
        pool=pool.name,
        model=_text(headers, MODEL_HEADER) or pool.name,
        tenant=_checked(TENANT_HEADER, tenant) if tenant else peer.agent_type,
        service_class=_service_class(pool, tenant or peer.agent_type, headers),
        prompt_tokens=math.ceil(_number(headers, PROMPT_HEADER) / BYTES_PER_TOKEN),
        max_output_tokens=_number(headers, OUTPUT_HEADER) or None,
        arrived=now,
        deadline=_deadline(headers),
        sidecar=peer.sidecar,
        agent_type=peer.agent_type,
        streaming=headers.get(STREAM_HEADER) == "1",
        context=_text(headers, CONTEXT_HEADER),
        key=_text(headers, KEY_HEADER),
        prefix=_text(headers, PREFIX_HEADER),
        # A call that has a budget but no trace is a tree by itself.
        tree=_trace(headers) or (call_id if BUDGET_HEADER in headers else None),
        tree_tokens=whole.tokens,
        tree_usd=whole.usd,
        branches=branches,
    )


def call_id_of(asked: Asked, peer: Peer) -> str | None:
    """The id of the call, if it has been admitted already.

    Raises InvalidRequest if it is not one that `peer` was given.
    """
    call_id = asked.headers.get(CALL_HEADER)
    if not call_id:
        return None
    if not is_of(call_id, peer.sidecar):
        raise InvalidRequest(f"{CALL_HEADER} names a call that this sidecar was not given")
    return call_id


def _from_metadata(request: Any) -> dict[str, str]:
    if METADATA not in request.metadata_context.filter_metadata:
        return {}
    fields = request.metadata_context.filter_metadata[METADATA].fields
    found = {}
    for name, header in _IN_METADATA.items():
        if name in fields:
            value = fields[name]
            found[header] = value.string_value or f"{value.number_value:.0f}"
    return found


def _checked(name: str, value: str) -> str:
    if len(value) > MAX_VALUE_LENGTH or not value.isprintable():
        raise InvalidRequest(f"{name} must be at most {MAX_VALUE_LENGTH} printable characters")
    return value


def _text(headers: Mapping[str, str], name: str) -> str | None:
    value = headers.get(name)
    return _checked(name, value) if value else None


def _number(headers: Mapping[str, str], name: str) -> int:
    value = headers.get(name) or "0"
    if not (value.isascii() and value.isdecimal() and len(value) <= 12):
        raise InvalidRequest(f"{name} must be a whole number, not {value[:40]!r}")
    return min(int(value), MAX_COUNT)


def _deadline(headers: Mapping[str, str]) -> float | None:
    value = headers.get(DEADLINE_HEADER)
    if value is None:
        return None
    if not (value.isascii() and value.isdecimal() and len(value) <= 15):
        raise InvalidRequest(
            f"{DEADLINE_HEADER} must be milliseconds since 1970, a whole number, not {value[:40]!r}"
        )
    return int(value) / 1000


def _service_class(pool: ModelPool, tenant: str, headers: Mapping[str, str]) -> ServiceClass:
    """The class that the call asks for; by default, and at best, that of its tenant."""
    best = _best_class(pool, tenant)
    value = headers.get(CLASS_HEADER)
    if value is None:
        return best
    try:
        wanted = ServiceClass(value.strip().lower())
    except ValueError:
        names = ", ".join(ServiceClass)
        raise InvalidRequest(f"{CLASS_HEADER} must be one of {names}, not {value[:40]!r}") from None
    return max(wanted, best, key=lambda each: each.rank)


def _best_class(pool: ModelPool, tenant: str) -> ServiceClass:
    named: Iterable[ServiceClass] = (
        each.service_class for each in pool.spec.scheduling.tenants if each.name == tenant
    )
    return next(iter(named), ServiceClass.STANDARD)


def _budget(headers: Mapping[str, str]) -> tuple[BudgetLimit, tuple[BudgetLimit, ...]]:
    """What the whole tree may spend, and what its branches that the call is in."""
    value = headers.get(BUDGET_HEADER)
    limits = parse_budget(value) if value is not None else ()
    whole = next((each for each in limits if each.branch == WHOLE_TREE), BudgetLimit())
    return whole, tuple(each for each in limits if each.branch != WHOLE_TREE)


def _trace(headers: Mapping[str, str]) -> str | None:
    found = _TRACE.fullmatch(headers.get(TRACE_HEADER, ""))
    return found[1] if found is not None and found[1] != _NO_TRACE else None
