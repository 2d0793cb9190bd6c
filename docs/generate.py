"""Writes the tables of the reference from the code: `python docs/generate.py`.

In every page, what stands between `<!-- generated: NAME -->` and `<!-- end -->` comes from here. What is made
from the code of the Helm chart comes from `docs.chart`.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import re
import types
from collections.abc import Callable, Iterable, Iterator
from dataclasses import MISSING, dataclass, fields, is_dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

from docs import chart
from fastapi import APIRouter
from fastapi.routing import APIRoute
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from weft import errors
from weft.cli.main import make_app
from weft.controlplane.api import (
    agents,
    audit,
    can,
    dashboard,
    destinations,
    drains,
    gateways,
    identity,
    message_keys,
    messaging,
    prometheus,
    queues,
    reach,
    resources,
    sidecars,
    tasks,
    telemetry,
    tokens,
    tools,
    topics,
    traces,
    traffic,
)
from weft.controlplane.api.access import MEMBERS, Rule
from weft.controlplane.settings import ControlPlaneSettings
from weft.gateway import health as gateway_health
from weft.gateway import tasks as gateway_tasks
from weft.gateway import topics as gateway_topics
from weft.gateway import webhook_secret as gateway_webhook_secret
from weft.model.attribute_docs import assigned_name, attribute_docstrings
from weft.model.duration import format_duration
from weft.model.operator import Scope
from weft.model.resource import KINDS, Metadata
from weft.model.spec import Spec
from weft.model.spiffe import Role
from weft.model.target import Target
from weft.model.traffic import BalancingPolicy
from weft.sidecar.arguments import argument_parser
from weft.sidecar.settings import HealthSettings, SidecarSettings

DOCS = Path(__file__).parent
SOURCES = DOCS.parent / "src" / "weft"

_BLOCK = re.compile(r"(<!-- generated: (?P<name>[a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)

MEANINGS = {
    "Metadata.name": "Of an Agent: its type. Unique within its kind.",
    "Metadata.labels": "For people and programs; Weft does not read them.",
    "Metadata.annotations": "For people and programs; Weft does not read them.",
    "AgentSpec.description": "For people.",
    "AgentSpec.capabilities": "What the instances can do; each becomes an address, `<capability>.cap.mesh`.",
    "AgentSpec.version": "Given to every instance; a Route can split by it.",
    "AgentSpec.protocol": (
        "What the agent speaks: HTTP/1.1, HTTP/2 without TLS (gRPC), [A2A](agents.md#join-an-a2a-agent), or "
        "MCP over HTTP or its standard input and output."
    ),
    "HealthCheck.interval": "Between checks, give or take a tenth; shorter while the agent starts.",
    "HealthCheck.timeout": "How long one check may take.",
    "LocalitySpec.region": "Callers prefer their own region, after their own zone.",
    "LocalitySpec.zone": "Callers prefer their own zone.",
    "Run.replicas": "How many instances to run.",
    "Target.type": "All agents of this type.",
    "Target.capability": "All agents that offer this capability.",
    "RouteSpec.rules": "The first that matches a call counts; calls that match none are treated as usual.",
    "RouteRule.name": "For people; it is the route's name in Envoy.",
    "RouteRule.mirror": "Send copies of the calls elsewhere.",
    "PathMatch.prefix": "Paths that begin so.",
    "PathMatch.exact": "This path only.",
    "PathMatch.regex": "Paths that match as a whole; RE2 syntax.",
    "RequestMatch.method": "An HTTP method, in capitals.",
    "RequestMatch.headers": "All of these must match.",
    "HeaderMatch.name": "Which header; its case makes no difference.",
    "HeaderMatch.exact": "This value only.",
    "HeaderMatch.prefix": "Values that begin so.",
    "HeaderMatch.regex": "Values that match as a whole; RE2 syntax.",
    "SplitTarget.version": "Only instances of this version.",
    "SplitTarget.weight": "This part's share is its weight over the sum of all.",
    "Mirror.version": "Only instances of this version.",
    "Mirror.type": "Another type; by default the Route's own destination.",
    "Mirror.percent": "Of the calls are copied.",
    "HeaderChanges.remove": "Take the header away.",
    "RouteRule.request_headers": "Before the agent sees the request.",
    "RouteRule.response_headers": "Before the caller sees the answer.",
    "DelayFault.duration": "How long they wait.",
    "DelayFault.percent": "Of the calls are delayed.",
    "AbortFault.status": "The HTTP status they are answered with.",
    "AbortFault.percent": "Of the calls are answered so.",
    "OutlierDetectionSettings.enabled": "Whether instances are left out at all.",
    "OutlierDetectionSettings.interval": "Between looks at who is to be left out or taken back.",
    "OutlierDetectionSettings.max_ejected_percent": "Of the instances may be left out at once.",
    "HashOn.header": "Calls with the same value of it go to the same instance.",
    "LoadBalancing.policy": "How the next instance is chosen.",
    "CircuitBreaker.max_connections": "Connections open at once.",
    "CircuitBreaker.max_pending_requests": "Calls that wait for a connection.",
    "CircuitBreaker.max_requests": "Calls in flight.",
    "CircuitBreaker.max_retries": "Retries in flight.",
    "Retries.attempts": "Further tries after the first.",
    "AccessPolicySpec.effect": "What is done with the requests that match.",
    "AccessRule.methods": "Of HTTP, in capitals.",
    "AccessRule.mcp": "Requests of MCP, by what their bodies say.",
    "AccessRule.a2a": "Requests of A2A, by what their bodies say.",
    "AccessRule.actions": "Which of the actions; a rule without any goes for all.",
    "AccessDestination.type": "Agents of this type.",
    "AccessDestination.version": "Only instances of this version.",
    "AccessDestination.capability": "Agents that offer this capability.",
    "AccessDestination.topic": "A Topic.",
    "AccessDestination.queue": "A Queue.",
    "A2aMatch.methods": "By their names in A2A 1.0; former names and other bindings are meant too.",
    "TopicSpec.description": "For people.",
    "QueueSpec.description": "For people.",
    "BrokerSpec.username": "Who connects.",
    "Rate.per": "The time that `requests` are for.",
    "WebhookSpec.max_attempts": "After so many it is among the dead letters of the queue `weft-webhooks`.",
    "GatewaySpec.description": "For people.",
    "Backoff.longest": "However often it has failed.",
    "GatewaySpec.jwt": "Whose JSON Web Tokens are taken, as `Authorization: Bearer`.",
    "GatewaySpec.webhooks": "Where the ends of tasks may be told.",
    "PasswordSource.secret": "The Secret's name.",
    "PasswordSource.key": "Which value of its `data`.",
    "TaskIntake.queue": "The Queue's name.",
    "ModelPoolSpec.description": "For people.",
    "ModelPoolSpec.providers": "Who serves it.",
    "ModelPoolSpec.scheduling": "How calls wait, and who goes first.",
    "ModelPoolSpec.affinity": "Which calls prefer the provider that had the one before.",
    "Provider.name": "Unique in its pool.",
    "Provider.preset": "What kind of service it is.",
    "Provider.limits": "What it allows, for all of the mesh together.",
    "Provider.prices": "By which budgets in dollars are kept.",
    "Prices.input": "For tokens of prompts.",
    "Prices.output": "For tokens of answers.",
    "BudgetSpec.description": "For people.",
    "BudgetSpec.scope": "Who shares it.",
    "BudgetSpec.period": "After which time it begins anew, in UTC.",
    "SidecarSettings.version": "Of the agent; a Route can split by it.",
    "SidecarSettings.capabilities": "What the agent can do.",
    "SidecarSettings.labels": "NAME=VALUE; discovery can ask for it.",
    "SidecarSettings.locality": "Where the agent runs: region and zone.",
    "SidecarSettings.nats_servers": "URLs of NATS servers, tried in turn.",
}
"""What the fields mean that have no docstring of their own in the code."""

_SCALARS = {bool: "true or false", int: "integer", float: "number", str: "text"}


class Undocumented(Exception):
    """A field has no meaning, or one of MEANINGS is not needed (any more)."""


def documented_elsewhere() -> set[str]:
    """The entries of MEANINGS for which the code has a docstring now, or no field: they are to go."""
    owners: list[type] = [SidecarSettings, Metadata]
    for spec in KINDS.values():
        owners += [spec, *_parts(spec)]
    missing = {
        f"{owner.__name__}.{name}"
        for owner in owners
        for name in _names(owner)
        if not attribute_docstrings(owner).get(name)
    }
    return MEANINGS.keys() - missing


def _names(owner: type) -> Iterable[str]:
    if is_dataclass(owner):
        return [each.name for each in fields(owner)]
    assert issubclass(owner, BaseModel)  # noqa: S101 - the only other kind there is
    return owner.model_fields


def _meaning(owner: type, name: str, value_type: type | None = None) -> str:
    text = attribute_docstrings(owner).get(name) or MEANINGS.get(f"{owner.__name__}.{name}")
    if text is None and value_type is not None:
        text = inspect.getdoc(value_type)
    if not text:
        raise Undocumented(f"{owner.__name__}.{name} has no docstring, nor an entry in MEANINGS")
    return text


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models in an annotation such as `tuple[Model, ...] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for each in get_args(annotation):
        yield from _models(each)


def _parts(spec: type[BaseModel]) -> list[type[BaseModel]]:
    """The models a spec is made of, each once, in the order in which they are met."""
    found: list[type[BaseModel]] = []
    for field in spec.model_fields.values():
        for model in _models(field.annotation):
            found += [each for each in (model, *_parts(model)) if each not in found]
    return found


def _kind(annotation: Any) -> str:
    """A type in words."""
    if annotation in _SCALARS:
        return _SCALARS[annotation]
    if isinstance(annotation, type):
        return _class(annotation)
    # Of a tuple, a union with None or an Annotated, the first argument says what it is about.
    of = _kind(get_args(annotation)[0])
    origin = get_origin(annotation)
    if origin in {Union, types.UnionType, Annotated}:
        return of
    return "map of text to text" if origin is dict else f"list of {of}"


def _class(annotation: type) -> str:
    if issubclass(annotation, StrEnum):
        return ", ".join(f"`{each}`" for each in annotation)
    return f"[{annotation.__name__}](#{annotation.__name__.lower()})"


def _is_duration(field: FieldInfo) -> bool:
    return any(
        getattr(each, "func", None) is format_duration for each in (field.metadata or [])
    ) or "format_duration" in repr(field.annotation)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default()
    if value is PydanticUndefined or value is None or value in ((), [], {}, ""):
        return ""
    if isinstance(value, BaseModel):
        return "its defaults"
    return _code(format_duration(value) if _is_duration(field) else value)


def _code(value: Any) -> str:
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, list | tuple):
        return f"`{','.join(map(str, value))}`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def _limits(field: FieldInfo) -> str:
    """What a value must keep to, as far as it is plain numbers."""
    given = {
        name: getattr(each, name) for each in field.metadata for name in ("ge", "le") if hasattr(each, name)
    }
    if given.keys() == {"ge", "le"}:
        return f"{given['ge']:,} to {given['le']:,}"
    return f"at least {given['ge']:,}" if "ge" in given else ""


def _table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    columns = list(columns)
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(_cell(each) for each in line)} |\n" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _model_table(model: type[BaseModel]) -> str:
    rows = []
    for name, field in model.model_fields.items():
        nested = next(_models(field.annotation), None)
        kind = "duration" if _is_duration(field) else _kind(field.annotation)
        limits = _limits(field)
        kind = f"{kind}, {limits}" if limits else kind
        rows.append(
            (f"`{field.alias or name}`", kind, _default(field), _meaning(model, name, nested or _enum(field)))
        )
    return _table(("field", "type", "default", "meaning"), rows)


def _enum(field: FieldInfo) -> type | None:
    annotation = field.annotation
    return annotation if isinstance(annotation, type) and issubclass(annotation, StrEnum) else None


_SHOWN_BEFORE = {KINDS["Route"]: "TrafficPolicy", KINDS["Queue"]: "Topic", KINDS["Telemetry"]: "Route"}
"""Whose parts are on the page already."""


def _page_of(spec: type[Spec]) -> Callable[[], str]:
    """A kind's spec and all it is made of, each with a heading."""

    def write() -> str:
        sections = [_model_table(spec)]
        elsewhere = [Target, *(_parts(KINDS[_SHOWN_BEFORE[spec]]) if spec in _SHOWN_BEFORE else [])]
        sections += [
            f"#### {part.__name__}\n\n{inspect.getdoc(part)}\n\n{_model_table(part)}"
            for part in _parts(spec)
            if part not in elsewhere
        ]
        return "\n".join(sections)

    return write


def balancing_policies() -> str:
    """The policies by which the next instance is chosen."""
    told = {**_OTHER_POLICIES, **attribute_docstrings(BalancingPolicy)}
    return _table(("policy", "meaning"), ((f"`{each.value}`", told[each.name]) for each in BalancingPolicy))


def scopes() -> str:
    """What each scope of an operator's token allows."""
    told = attribute_docstrings(Scope)
    rows = ((f"`{each.value}`", told[each.name]) for each in Scope)
    return _table(("scope", "what its holder may do"), rows)


_OTHER_POLICIES = {"ROUND_ROBIN": "In turn.", "RANDOM": "By chance, each with the same share."}


def control_settings() -> str:
    """Settings of the control plane: flag, variable, default, meaning."""
    rows = []
    for name, field in ControlPlaneSettings.model_fields.items():
        flag = f"`--{name.replace('_', '-')}`"
        variable = f"`WEFT_CONTROL_{name.upper()}`"
        rows.append((flag, variable, _default(field), _meaning(ControlPlaneSettings, name)))
    return _table(("flag", "variable", "default", "meaning"), rows)


def sidecar_settings() -> str:
    """Settings of a sidecar: flag, default, meaning."""
    rows = []
    for action in argument_parser({})._actions:
        if not isinstance(action, argparse._HelpAction):
            owner, name = _setting_of(action.dest)
            repeated = " May be repeated." if isinstance(action, argparse._AppendAction) else ""
            flag = f"`{action.option_strings[-1]}`"
            rows.append((flag, _setting_default(owner, name), _meaning(owner, name) + repeated))
    return _table(("flag", "default", "meaning"), rows)


_OF_SEVERAL = {
    "capability": "capabilities",
    "label": "labels",
    "region": "locality",
    "zone": "locality",
    "consume": "consumes",
    "probe": "probes",
    "subscribe": "subscribes",
    "subscribe_each": "subscribes",
}
_RENAMED = {"nats": "nats_servers", "xds": "xds_addresses", "api": "api_addresses"}


def _setting_of(dest: str) -> tuple[type, str]:
    if dest.startswith("health_"):
        return HealthSettings, dest.removeprefix("health_")
    return SidecarSettings, (_OF_SEVERAL | _RENAMED).get(dest, dest)


def _setting_default(owner: type, name: str) -> str:
    (field,) = [each for each in fields(owner) if each.name == name]
    if field.default is MISSING or name == "locality" or field.default in (None, "", (), frozenset()):
        return ""
    return _code(field.default)


def commands() -> str:
    """Every command of `weft`, by Cyclopts itself."""
    text = make_app().generate_docs(output_format="markdown")
    text = text.partition("\n## weft ")[2]
    # Cyclopts takes "python -m pytest" for the name of a subcommand, less its first word.
    text = re.sub(r"^(weft \w+ \w+) -m \S+", r"\1", text, flags=re.MULTILINE)
    # Names with a trailing underscore only avoid Python's own.
    text = re.sub(r"`(TYPE|ID)_`", r"`\1`", text)
    return f"## weft {text.rstrip()}\n"


def error_codes() -> str:
    """The codes of weft.errors."""
    found: list[type[errors.MeshError]] = [errors.MeshError]
    for each in found:
        found += each.__subclasses__()
    own = [each for each in found if each.__module__ == errors.__name__]
    rows = (
        (f"`{each.code}`", str(each.status), f"`{each.__name__}`", _first_paragraph(each)) for each in own
    )
    return _table(("code", "status", "class", "meaning"), rows)


_ROUTERS: tuple[APIRouter, ...] = (
    agents.router,
    drains.router,
    sidecars.router,
    resources.router,
    can.router,
    reach.router,
    identity.router,
    tokens.router,
    dashboard.router,
    audit.router,
    messaging.router,
    *message_keys.routers,
    queues.router,
    tasks.router,
    topics.router,
    gateways.router,
    tools.router,
    prometheus.router,
    traffic.router,
    destinations.router,
    traces.router,
    telemetry.router,
)

_GATEWAY_ROUTERS: tuple[APIRouter, ...] = tuple(
    module.router for module in (gateway_tasks, gateway_topics, gateway_webhook_secret, gateway_health)
)


def endpoints() -> str:
    """The API's endpoints."""
    rows = [
        (f"`{method} {route.path}`", _who(route), _first_paragraph(route.endpoint))
        for router in _ROUTERS
        for route in router.routes
        if isinstance(route, APIRoute)
        for method in sorted(route.methods or ())
    ]
    return _table(("endpoint", "who", "what"), rows)


def gateway_endpoints() -> str:
    """A gateway's endpoints."""
    rows = [
        (f"`{method} {route.path}`", _first_paragraph(route.endpoint))
        for router in _GATEWAY_ROUTERS
        for route in router.routes
        if isinstance(route, APIRoute)
        for method in sorted(route.methods or ())
    ]
    return _table(("endpoint", "what"), rows)


def _who(route: APIRoute) -> str:
    """Who may call an endpoint: the least scope of a token, and which processes of the mesh."""
    rules = [each.call for each in route.dependant.dependencies if isinstance(each.call, Rule)]
    if not rules:
        return "anybody"
    (rule,) = rules
    if not rule.peers:
        return str(rule.scope)
    peers = _PEERS[rule.peers] + (", themselves" if rule.in_person else "")
    # Beside peers, the highest scope stands for: a token is no identity, and none will do.
    return peers if rule.scope is Scope.ADMIN else f"{rule.scope}; {peers}"


_PEERS = {
    MEMBERS: "processes",
    frozenset({Role.AGENT, Role.OPERATOR}): "sidecars",
    frozenset({Role.AGENT}): "gateways",
}


def _first_paragraph(documented: Any) -> str:
    return (inspect.getdoc(documented) or "").partition("\n\n")[0]


_METRIC_TYPES = {
    "Counter": "counter",
    "CounterMetricFamily": "counter",
    "Gauge": "gauge",
    "GaugeMetricFamily": "gauge",
    "Histogram": "histogram",
    "HistogramMetricFamily": "histogram",
}
_METRIC_PACKAGES = {"control": ("controlplane",), "sidecar": ("sidecar",)}


@dataclass(frozen=True)
class Metric:
    """One metric that the code makes."""

    name: str
    """As Prometheus has it."""
    kind: str
    labels: tuple[str, ...]
    help: str
    package: str
    """The part of Weft that has it."""


@cache
def metrics() -> tuple[Metric, ...]:
    """Every metric that is made in the code, by package and name."""
    found: list[Metric] = []
    for path in sorted(SOURCES.rglob("*.py")):
        tree, package = ast.parse(path.read_text()), path.relative_to(SOURCES).parts[0]
        calls = [each for each in ast.walk(tree) if isinstance(each, ast.Call) and _is_metric(each)]
        found += [_metric(each, tree, package) for each in calls]
    return tuple(sorted(found, key=lambda each: (each.package, each.name)))


def _is_metric(call: ast.Call) -> bool:
    made = isinstance(call.func, ast.Name) and call.func.id in _METRIC_TYPES and call.args
    return bool(made) and str(getattr(call.args[0], "value", "")).startswith("weft_")


def _metric(call: ast.Call, tree: ast.Module, package: str) -> Metric:
    assert isinstance(call.func, ast.Name)  # noqa: S101 - _is_metric saw to it
    name, text = (ast.literal_eval(each) for each in call.args[:2])
    kind = _METRIC_TYPES[call.func.id]
    total = "_total" if kind == "counter" and not name.endswith("_total") else ""
    given = {each.arg: each.value for each in call.keywords}
    labels = given.get("labels") or given.get("labelnames") or (call.args[2] if len(call.args) > 2 else None)
    return Metric(name + total, kind, _label_names(labels, tree), text.rstrip("."), package)


def _label_names(node: ast.expr | None, tree: ast.Module) -> tuple[str, ...]:
    """The names in a list of labels, which may be that of a constant of the module, or begin with one."""
    match node:
        case ast.Constant(value=str(name)):
            return (name,)
        case ast.List() | ast.Tuple():
            return tuple(name for each in node.elts for name in _label_names(each, tree))
        case ast.Starred():
            return _label_names(node.value, tree)
        case ast.Name():
            values = [
                each.value
                for each in ast.walk(tree)
                if isinstance(each, ast.Assign | ast.AnnAssign)
                and each.value
                and assigned_name(each) == node.id
            ]
            return _label_names(values[0], tree) if values else ()
    return ()


def metric_table(*packages: str) -> Callable[[], str]:
    """The metrics of some packages; without any, of all that no other table has."""

    def write() -> str:
        elsewhere = {each for names in _METRIC_PACKAGES.values() for each in names}
        shown = [
            each
            for each in metrics()
            if (each.package in packages if packages else each.package not in elsewhere)
        ]
        rows = [
            (f"`{each.name}`", each.kind, ", ".join(f"`{label}`" for label in each.labels), each.help)
            for each in shown
        ]
        return _table(("metric", "type", "labels", "what"), rows)

    return write


BLOCKS: dict[str, Callable[[], str]] = {
    "metadata": lambda: _model_table(Metadata),
    "target": lambda: _model_table(Target),
    "agent": _page_of(KINDS["Agent"]),
    "route": _page_of(KINDS["Route"]),
    "traffic-policy": _page_of(KINDS["TrafficPolicy"]),
    "access-policy": _page_of(KINDS["AccessPolicy"]),
    "secret": _page_of(KINDS["Secret"]),
    "egress": _page_of(KINDS["Egress"]),
    "topic": _page_of(KINDS["Topic"]),
    "queue": _page_of(KINDS["Queue"]),
    "broker": _page_of(KINDS["Broker"]),
    "gateway": _page_of(KINDS["Gateway"]),
    "modelpool": _page_of(KINDS["ModelPool"]),
    "budget": _page_of(KINDS["Budget"]),
    "tool": _page_of(KINDS["Tool"]),
    "telemetry": _page_of(KINDS["Telemetry"]),
    "externalagent": _page_of(KINDS["ExternalAgent"]),
    "gateway-endpoints": gateway_endpoints,
    "balancing-policies": balancing_policies,
    "scopes": scopes,
    "control-settings": control_settings,
    "sidecar-settings": sidecar_settings,
    "commands": commands,
    "error-codes": error_codes,
    "endpoints": endpoints,
    "control-metrics": metric_table(*_METRIC_PACKAGES["control"]),
    "sidecar-metrics": metric_table(*_METRIC_PACKAGES["sidecar"]),
    "program-metrics": metric_table(),
}


def generated(page: str) -> str:
    """`page` with its generated parts made anew. Raises KeyError for a part nobody makes."""
    return _BLOCK.sub(lambda match: f"{match[1]}\n{BLOCKS[match['name']]()}\n{match[3]}", page)


def pages() -> list[Path]:
    """The pages with generated parts."""
    return [each for each in sorted(DOCS.glob("*.md")) if "<!-- generated:" in each.read_text()]


if __name__ == "__main__":
    for path in pages():
        path.write_text(generated(path.read_text()))
    chart.write()
