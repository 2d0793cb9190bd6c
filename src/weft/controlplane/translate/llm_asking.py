"""How Envoy asks the scheduler about a call: by headers alone (ext_proc), at two points.

**May it start?** Before it is routed, where it exceeds the lease. The scheduler gets the headers `x-weft-...`
(those of `weft.model.llm_wire`, and what the agent set) and `traceparent`. It answers with CALL_HEADER and
CLUSTER_HEADER, the dynamic metadata `call` in METADATA, and `clear_route_cache`; or itself, with an error.
A call that comes back from a scheduler that has died without CALL_HEADER is asked for once more, at any
replica of the control plane.

**May it go to the next provider?** Before every attempt but the first, the headers are those of the attempt
before, without what the mesh had set. So the question's own gRPC metadata say, as POOL_HEADER and
PROVIDER_HEADER, which provider it goes to, and the dynamic metadata of METADATA what else there is to know.
An empty answer means yes. Without a scheduler the attempt is made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from envoy.extensions.common.matching.v3.extension_matcher_pb2 import ExtensionWithMatcher
from envoy.extensions.filters.http.composite.v3.composite_pb2 import Composite, ExecuteFilterAction
from envoy.extensions.filters.http.ext_proc.v3.ext_proc_pb2 import ExternalProcessor
from envoy.extensions.filters.http.ext_proc.v3.processing_mode_pb2 import ProcessingMode
from envoy.extensions.retry.host.previous_hosts.v3.previous_hosts_pb2 import PreviousHostsPredicate
from envoy.type.matcher.v3.http_inputs_pb2 import HttpRequestHeaderMatchInput
from google.protobuf.message import Message
from xds.type.matcher.v3.matcher_pb2 import Matcher

from weft.controlplane.translate.durations import duration
from weft.model.llm_wire import (
    AGAIN_HEADER,
    ASK_HEADER,
    CALL_HEADER,
    METADATA,
    POOL_HEADER,
    PROVIDER_HEADER,
    SCHEDULER_CLUSTER,
)

XDS_CLUSTER = "xds"
"""All replicas of the control plane; it stands in every sidecar's bootstrap."""

ATTEMPT_HEADER = "x-envoy-attempt-count"
"""Set by the router, whatever the agent sends: 1, 2, ..."""

LONGEST_WAIT = 3600.0
"""Seconds, at most, for which the scheduler may keep a call waiting; it has to end that itself before."""

_RETRIES = 10
_PAUSE, _LONGEST_PAUSE = 0.05, 1.0
"""Seconds between two replicas that are asked, on average half of it; it doubles."""

_HEADERS = ("traceparent", ATTEMPT_HEADER)
_PREFIX = "x-weft-"


def ask_to_start() -> ExtensionWithMatcher:
    """Ask the scheduler about what exceeds the lease; go on if it is not there."""
    return _where(_present(ASK_HEADER), _processor(SCHEDULER_CLUSTER, failure_mode_allow=True))


def ask_again() -> ExtensionWithMatcher:
    """Ask any replica of the control plane where nobody has answered; fail if none does."""
    unanswered = Matcher.MatcherList.Predicate()
    unanswered.and_matcher.predicate.append(_present(ASK_HEADER))
    unanswered.and_matcher.predicate.add().not_matcher.CopyFrom(_present(CALL_HEADER))
    processor = _processor(XDS_CLUSTER, failure_mode_allow=False)
    # The replica that has died is one of them still.
    retries = processor.grpc_service.retry_policy
    retries.retry_on = "connect-failure,refused-stream,reset"
    retries.num_retries.value = _RETRIES
    retries.retry_back_off.base_interval.CopyFrom(duration(_PAUSE))
    retries.retry_back_off.max_interval.CopyFrom(duration(_LONGEST_PAUSE))
    other = retries.retry_host_predicate.add(name="envoy.retry_host_predicates.previous_hosts")
    other.typed_config.Pack(PreviousHostsPredicate())
    retries.host_selection_retry_max_attempts = _RETRIES
    return _where(unanswered, processor)


def ask_for_attempts(pool: str, order: Sequence[str]) -> ExtensionWithMatcher:
    """Ask about every attempt but the first: the nth goes to the nth provider of `order`.

    About the first, too, where somebody else has already begun to answer, and broke off.
    """
    asked = {}
    for number, provider in enumerate(order, 1):
        asked[number] = processor = _processor(SCHEDULER_CLUSTER, failure_mode_allow=True)
        processor.grpc_service.initial_metadata.add(key=POOL_HEADER, value=pool)
        processor.grpc_service.initial_metadata.add(key=PROVIDER_HEADER, value=provider)
        processor.request_attributes.append("xds.cluster_name")
    result = by_attempt(asked)
    first = result.xds_matcher.matcher_tree.exact_match_map.map["1"]
    again = Matcher()
    again.matcher_list.matchers.add(predicate=_present(AGAIN_HEADER)).on_match.CopyFrom(first)
    first.matcher.CopyFrom(again)
    return result


def by_attempt(filters: Mapping[int, Message]) -> ExtensionWithMatcher:
    """A filter that is another one for each attempt, by its number; none for those that are not named."""
    return by_header(ATTEMPT_HEADER, {str(number): config for number, config in filters.items()})


def by_header(name: str, filters: Mapping[str, Message]) -> ExtensionWithMatcher:
    """A filter that is another one for each value of a header; none for those that are not named."""
    result = _composite()
    tree = result.xds_matcher.matcher_tree
    tree.input.name = name
    tree.input.typed_config.Pack(HttpRequestHeaderMatchInput(header_name=name))
    for value, config in filters.items():
        _execute(tree.exact_match_map.map[value], config)
    return result


def _processor(cluster: str, *, failure_mode_allow: bool) -> ExternalProcessor:
    processor = ExternalProcessor(
        failure_mode_allow=failure_mode_allow,
        message_timeout=duration(LONGEST_WAIT),
        stat_prefix="llm",
    )
    processor.grpc_service.envoy_grpc.cluster_name = cluster
    mode = processor.processing_mode
    mode.request_header_mode = ProcessingMode.SEND
    mode.response_header_mode = ProcessingMode.SKIP
    mode.request_trailer_mode = ProcessingMode.SKIP
    mode.response_trailer_mode = ProcessingMode.SKIP
    # What is none of the scheduler's business it is not told: keys above all.
    allowed = processor.forward_rules.allowed_headers.patterns
    allowed.add(prefix=_PREFIX)
    for each in _HEADERS:
        allowed.add(exact=each)
    processor.metadata_options.forwarding_namespaces.untyped.append(METADATA)
    processor.metadata_options.receiving_namespaces.untyped.append(METADATA)
    return processor


def _where(predicate: Matcher.MatcherList.Predicate, config: Message) -> ExtensionWithMatcher:
    result = _composite()
    matcher = result.xds_matcher.matcher_list.matchers.add(predicate=predicate)
    _execute(matcher.on_match, config)
    return result


def _present(name: str) -> Matcher.MatcherList.Predicate:
    return _matches(name, ".+")


def _matches(name: str, regex: str) -> Matcher.MatcherList.Predicate:
    predicate = Matcher.MatcherList.Predicate()
    single = predicate.single_predicate
    single.input.name = name
    single.input.typed_config.Pack(HttpRequestHeaderMatchInput(header_name=name))
    single.value_match.safe_regex.google_re2.SetInParent()
    single.value_match.safe_regex.regex = regex
    return predicate


def _composite() -> ExtensionWithMatcher:
    result = ExtensionWithMatcher()
    result.extension_config.name = "composite"
    result.extension_config.typed_config.Pack(Composite())
    return result


def _execute(on_match: Matcher.OnMatch, config: Message) -> None:
    action = ExecuteFilterAction()
    action.typed_config.name = config.DESCRIPTOR.name
    action.typed_config.typed_config.Pack(config)
    on_match.action.name = config.DESCRIPTOR.name
    on_match.action.typed_config.Pack(action)
