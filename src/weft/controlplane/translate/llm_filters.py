"""The outbound listener's filters for calls to models: off, until the models' virtual host turns them on.

A request passes them as they stand here, an answer the other way round:

1. the script reads the body into headers and metadata, and refuses what makes no sense;
2. the lease marks what exceeds it;
3. what is marked is asked for at the scheduler, and if that is gone, anywhere;
4. what the events of a streamed answer say of tokens becomes metadata, for the log; of whole answers the
   script sees to that, on the way back;
5. where a sidecar has the stream guard, that watches over answers which may break off midway.
"""

from __future__ import annotations

from typing import Any

from envoy.config.route.v3.route_components_pb2 import FilterConfig
from envoy.extensions.filters.http.lua.v3.lua_pb2 import Lua, LuaPerRoute
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import (
    HttpConnectionManager,
)
from google.protobuf.message import Message
from xds.type.v3.typed_struct_pb2 import TypedStruct

from weft.controlplane.translate.http_listener import add_filter, turned_on
from weft.controlplane.translate.llm_asking import ask_again, ask_to_start
from weft.controlplane.translate.llm_lease import lease_filter
from weft.controlplane.translate.llm_pools import Models, by_model
from weft.controlplane.translate.llm_scripts import listener_script
from weft.controlplane.translate.llm_streams import GUARD_FILTER, stream_guard
from weft.controlplane.translate.typed_struct import typed_struct
from weft.model.llm_wire import LEASE_FILTER, METADATA

SCRIPT_FILTER = "weft.llm.script"
ASK_FILTER = "weft.llm.ask"
ASK_AGAIN_FILTER = "weft.llm.ask-again"
EVENTS_FILTER = "weft.llm.events"

_TURNED_ON = (LEASE_FILTER, ASK_FILTER, ASK_AGAIN_FILTER, EVENTS_FILTER, GUARD_FILTER)

_MAX_EVENT_BYTES = 4 * 1024 * 1024
"""A larger event is not looked at; one of those of Responses has all of the answer in it."""

_USAGE = (
    (("usage", "prompt_tokens"), "prompt_tokens"),
    (("usage", "completion_tokens"), "completion_tokens"),
    (("usage", "total_tokens"), "total_tokens"),
    (("usage", "prompt_tokens_details", "cached_tokens"), "cached_tokens"),
    (("usage", "input_tokens"), "prompt_tokens"),
    (("usage", "output_tokens"), "completion_tokens"),
    (("usage", "input_tokens_details", "cached_tokens"), "cached_tokens"),
)
"""Where an event says what, and the key it gets. Those of Responses have it within `response`."""


def add_llm_filters(manager: HttpConnectionManager, *, guarded: bool = False) -> None:
    """Add the filters to `manager`, all of them off; `guarded`: its Envoy can load the stream guard."""
    script = Lua(clear_route_cache={"value": True})
    script.default_source_code.inline_string = listener_script()
    add_filter(manager, SCRIPT_FILTER, script, disabled=True)
    manager.http_filters.append(lease_filter())
    add_filter(manager, ASK_FILTER, ask_to_start(), disabled=True)
    add_filter(manager, ASK_AGAIN_FILTER, ask_again(), disabled=True)
    add_filter(manager, EVENTS_FILTER, _usage_of_events(), disabled=True)
    if guarded:
        add_filter(manager, GUARD_FILTER, stream_guard(), disabled=True)


def llm_filters_on(models: Models) -> dict[str, Message]:
    """For the virtual host of models: the filters' configurations, by their names."""
    script = LuaPerRoute()
    script.filter_context.update(by_model(models))
    return {SCRIPT_FILTER: script, **{each: turned_on() for each in _TURNED_ON}}


def llm_filters_off() -> dict[str, Message]:
    """For a route of a virtual host in which they are on."""
    return {each: FilterConfig(disabled=True) for each in (SCRIPT_FILTER, *_TURNED_ON)}


def _usage_of_events() -> TypedStruct:
    paths = [*_USAGE, *((("response", *path), key) for path, key in _USAGE)]
    rules = [{"rule": _rule(path, key)} for path, key in paths]
    parser = {
        "@type": "type.googleapis.com/envoy.extensions.content_parsers.json.v3.JsonContentParser",
        "rules": rules,
    }
    return typed_struct(
        "envoy.extensions.filters.http.sse_to_metadata.v3.SseToMetadata",
        {
            "response_rules": {
                "content_parser": {"name": "envoy.content_parsers.json", "typed_config": parser},
                "max_event_size": _MAX_EVENT_BYTES,
            }
        },
    )


def _rule(path: tuple[str, ...], key: str) -> dict[str, Any]:
    return {
        "selectors": [{"key": each} for each in path],
        "on_present": {"metadata_namespace": METADATA, "key": key, "type": "NUMBER"},
    }
