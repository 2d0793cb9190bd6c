"""What Envoy itself answers when a call to a model fails: errors as OpenAI's clients read them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from envoy.config.accesslog.v3.accesslog_pb2 import AccessLogFilter, MetadataFilter
from envoy.config.core.v3.substitution_format_string_pb2 import SubstitutionFormatString
from envoy.extensions.access_loggers.filters.cel.v3.cel_pb2 import ExpressionFilter
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import (
    ResponseMapper,
)

from weft.controlplane.translate.replies import ERROR_HEADER, header
from weft.model.llm_wire import METADATA

INVALID = "invalid_request_error"
SERVER = "server_error"
"""Values of `type` in an error."""

_POOL = f"%DYNAMIC_METADATA({METADATA}:pool)%"


@dataclass(frozen=True, slots=True)
class _Reply:
    """What to answer where Envoy sets one of `flags`, or its `details` begin so."""

    status: int
    code: str
    message: str
    flags: tuple[str, ...] = ()
    details: str = ""


_REPLIES = (
    _Reply(
        413,
        "request_too_large",
        "the body is larger than any pool of the mesh takes",
        details="request_payload_too_large",
    ),
    _Reply(
        502,
        "provider_error",
        f"the provider of pool '{_POOL}' gave a larger answer than can be looked at: raise maxBodyBytes",
        details="response_payload_too_large",
    ),
    _Reply(
        503,
        "scheduler_unavailable",
        "no replica of the control plane could be asked whether this call may start; try again",
        details="ext_proc",
    ),
    _Reply(
        503,
        "no_provider",
        f"no provider of pool '{_POOL}' could be connected to (%UPSTREAM_TRANSPORT_FAILURE_REASON%); "
        "see 'weft llm pools'",
        flags=("UH", "UF", "UO", "NC", "NR", "DF"),
    ),
    _Reply(
        504,
        "provider_timeout",
        f"no provider of pool '{_POOL}' answered in time; if need be, raise their timeout or firstToken",
        flags=("UT", "SI", "UMSDR", "DT"),
    ),
    _Reply(
        502,
        "provider_interrupted",
        f"the provider of pool '{_POOL}' closed the connection before its answer was complete; try again",
        flags=("UC", "UR", "LR", "UPE"),
    ),
)


def llm_replies() -> Iterator[ResponseMapper]:
    """For the listener through which agents call; they come before those for other calls."""
    for reply in _REPLIES:
        mapper = ResponseMapper(
            filter=_when(reply),
            body_format_override=error_format(
                reply.message, SERVER if reply.status >= 500 else INVALID, reply.code
            ),
            headers_to_add=[header(ERROR_HEADER, reply.code)],
        )
        mapper.status_code.value = reply.status
        yield mapper


def is_llm_call() -> AccessLogFilter:
    """Calls to models, of which the listener's script has left metadata."""
    condition = AccessLogFilter(metadata_filter=MetadataFilter())
    matcher = condition.metadata_filter.matcher
    matcher.filter = METADATA
    matcher.path.add().key = "stream"
    matcher.value.present_match = True
    condition.metadata_filter.match_if_key_not_found.value = False
    return condition


def error_format(message: str, kind: str, code: str) -> SubstitutionFormatString:
    """A body in OpenAI's form; `message` may hold Envoy's command operators."""
    body = SubstitutionFormatString(content_type="application/json")
    body.json_format.update({"error": {"message": message, "type": kind, "param": None, "code": code}})
    return body


def _when(reply: _Reply) -> AccessLogFilter:
    condition = AccessLogFilter()
    condition.and_filter.filters.append(is_llm_call())
    which = condition.and_filter.filters.add()
    if reply.flags:
        which.response_flag_filter.flags.extend(reply.flags)
    else:
        which.extension_filter.name = "envoy.access_loggers.extension_filters.cel"
        expression = f"response.code_details.startsWith('{reply.details}')"
        which.extension_filter.typed_config.Pack(ExpressionFilter(expression=expression))
    return condition
