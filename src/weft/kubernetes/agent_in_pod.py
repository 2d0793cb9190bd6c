"""What a pod's annotations, containers and service account say of its agent."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from weft.errors import InvalidRequest
from weft.kubernetes.problem import Refusal
from weft.model.event_format import EventFormat
from weft.model.names import check_type
from weft.model.node import AgentProtocol

PREFIX: Final = "weft.dev/"
"""Of all annotations and labels below."""

DEFAULT_PORT: Final = 8080
DEFAULT_CONTAINER: Final = "kubectl.kubernetes.io/default-container"
VERSION_LABEL: Final = "app.kubernetes.io/version"
_MAX_VALUE: Final = 16 * 1024
_PORT_NAMES: Final = ("agent", "http")


@dataclass(frozen=True, slots=True)
class _Annotation:
    """One that becomes an option of the sidecar."""

    name: str
    check: Callable[[str], object] = str
    list: bool = False
    """Whether its value is a list, with commas between, and the option is given for each part of it."""

    @property
    def flag(self) -> str:
        return "--" + {"capabilities": "capability", "labels": "label"}.get(self.name, self.name)


ANNOTATIONS: Final = (
    _Annotation("capabilities", list=True),
    _Annotation("labels", list=True),
    _Annotation("weight", int),
    _Annotation("protocol", AgentProtocol),
    _Annotation("mcp-path"),
    _Annotation("consume", list=True),
    _Annotation("subscribe", list=True),
    _Annotation("subscribe-each", list=True),
    _Annotation("event-format", EventFormat),
    _Annotation("health-path"),
    _Annotation("health-interval", float),
    _Annotation("health-timeout", float),
    _Annotation("healthy-threshold", int),
    _Annotation("unhealthy-threshold", int),
    _Annotation("drain-timeout", float),
    _Annotation("trace-sampling", float),
    _Annotation("log-level"),
)
"""Options of `weft sidecar`: `weft.dev/<name>: "..."` for each."""

_OTHERS: Final = frozenset({"inject", "type", "container", "port", "version", "injected", "restores"})


@dataclass(frozen=True, slots=True)
class AgentInPod:
    """The agent of one pod."""

    type: str
    container: str
    """The name of the container that it is."""
    port: int
    options: tuple[str, ...]
    """Of the sidecar: what annotations and labels ask for."""


def agent_in(pod: Mapping[str, Any]) -> AgentInPod:
    """The agent of a pod that has the shape of one. Raises Refusal."""
    metadata, spec = pod.get("metadata") or {}, pod["spec"]
    annotations = {
        name.removeprefix(PREFIX): value
        for name, value in (metadata.get("annotations") or {}).items()
        if name.startswith(PREFIX)
    }
    _check_known(annotations)
    container = _container(annotations, metadata, spec)
    return AgentInPod(
        type=_type(annotations, spec),
        container=container["name"],
        port=_port(annotations, container),
        options=tuple(_options(annotations, metadata)),
    )


def literal_environment(container: Mapping[str, Any]) -> dict[str, str]:
    """The variables that a container is given by their value."""
    return {
        each["name"]: str(each.get("value") or "")
        for each in container.get("env") or []
        if not each.get("valueFrom")
    }


def _check_known(annotations: Mapping[str, str]) -> None:
    known = _OTHERS | {each.name for each in ANNOTATIONS}
    for name, value in annotations.items():
        if name not in known:
            raise Refusal(
                "UnknownAnnotation",
                f"there is no annotation {PREFIX}{name}: it may be {', '.join(sorted(known - {'restores'}))}",
            )
        if name != "restores" and len(value) > _MAX_VALUE:
            raise Refusal("InvalidAnnotation", f"{PREFIX}{name} is longer than {_MAX_VALUE} characters")


def _type(annotations: Mapping[str, str], spec: Mapping[str, Any]) -> str:
    account = spec.get("serviceAccountName") or spec.get("serviceAccount") or "default"
    if account == "default":
        raise Refusal(
            "NoServiceAccount",
            "the pod has no service account of its own, by which it would prove what type of agent it is: "
            "create a ServiceAccount of the agent's name and set serviceAccountName, or leave the pod out of "
            f'the mesh by annotation {PREFIX}inject: "false"',
        )
    wanted = annotations.get("type", account)
    if wanted != account:
        raise Refusal(
            "TypeNotServiceAccount",
            f"{PREFIX}type is {wanted!r}, but the service account {account!r}: the type is what the service "
            f"account proves, so name them the same, or leave the annotation out",
        )
    try:
        return check_type(account)
    except InvalidRequest as error:
        raise Refusal(
            "InvalidType", f"the service account's name is the agent's type: {error.detail}"
        ) from error


def _container(
    annotations: Mapping[str, str], metadata: Mapping[str, Any], spec: Mapping[str, Any]
) -> Mapping[str, Any]:
    containers: list[Mapping[str, Any]] = spec["containers"]
    named = annotations.get("container")
    usual = (metadata.get("annotations") or {}).get(DEFAULT_CONTAINER)
    wanted = named or (usual if any(each["name"] == usual for each in containers) else containers[0]["name"])
    for each in containers:
        if each["name"] == wanted:
            return each
    raise Refusal(
        "NoSuchContainer",
        f"{PREFIX}container is {wanted!r}, but the pod's containers are "
        f"{', '.join(each['name'] for each in containers)}",
    )


def _port(annotations: Mapping[str, str], container: Mapping[str, Any]) -> int:
    given = _number(f"annotation {PREFIX}port", annotations.get("port"))
    variable = _number(f"PORT of container {container['name']}", literal_environment(container).get("PORT"))
    if given and variable and given != variable:
        raise Refusal(
            "PortsDiffer",
            f"{PREFIX}port is {given}, but container {container['name']!r} is told by PORT to listen at "
            f"{variable}: leave one of them out",
        )
    return given or variable or _declared(container) or DEFAULT_PORT


def _declared(container: Mapping[str, Any]) -> int | None:
    ports = [each for each in container.get("ports") or [] if each.get("protocol", "TCP") == "TCP"]
    named = [each for each in ports if each.get("name") in _PORT_NAMES]
    chosen = named or (ports if len(ports) == 1 else [])
    if not chosen and len(ports) > 1:
        raise Refusal(
            "PortUnclear",
            f"container {container['name']!r} has {len(ports)} ports: say by {PREFIX}port which is its",
        )
    return (
        _number(f"containerPort of {container['name']}", str(chosen[0].get("containerPort")))
        if chosen
        else None
    )


def _number(what: str, text: str | None) -> int | None:
    if text is None or text == "":
        return None
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 0 < int(text) < 65536:
        raise Refusal("InvalidPort", f"{what} is {text!r}, which is no port: give a number from 1 to 65535")
    return int(text)


def _options(annotations: Mapping[str, str], metadata: Mapping[str, Any]) -> Iterator[str]:
    version = annotations.get("version") or (metadata.get("labels") or {}).get(VERSION_LABEL)
    if version:
        yield f"--version={version}"
    for each in ANNOTATIONS:
        value = annotations.get(each.name)
        if value is None:
            continue
        parts = [part.strip() for part in value.split(",") if part.strip()] if each.list else [value]
        for part in parts:
            _check(each, part)
            yield f"{each.flag}={part}"


def _check(annotation: _Annotation, value: str) -> None:
    try:
        annotation.check(value)
    except ValueError as error:
        what = "a number" if annotation.check in (int, float) else "one of those there are"
        raise Refusal(
            "InvalidAnnotation", f"{PREFIX}{annotation.name} is {value!r}, which is not {what}"
        ) from error
    if annotation.name == "protocol" and AgentProtocol(value) is AgentProtocol.MCP_STDIO:
        raise Refusal(
            "ProtocolImpossible",
            "a sidecar in a container of its own cannot speak on its agent's standard streams: have the "
            "agent's container run `python -m weft.mcp_stdio -- COMMAND`, and set weft.dev/protocol to mcp",
        )
