"""Whether something is a pod at all, as far as it is looked at here. Kubernetes itself says the rest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from weft.kubernetes.problem import Refusal

MAX_CONTAINERS = 256


def check_pod(pod: Any) -> None:
    """Raise Refusal unless `pod` has metadata and a spec with containers, as far as they are read here."""
    _must(isinstance(pod, dict) and isinstance(pod.get("spec"), dict), "spec", "a mapping")
    metadata, spec = pod.get("metadata") or {}, pod["spec"]
    _must(_is(pod.get("metadata"), dict), "metadata", "a mapping")
    for field in ("annotations", "labels"):
        texts = metadata.get(field) or {}
        whole = _is(metadata.get(field), dict) and _all_text((*texts, *texts.values()))
        _must(whole, f"metadata.{field}", "a mapping of texts")
    containers = _named(spec, "containers", "spec")
    _must(bool(containers), "spec.containers", "a list with one container at least")
    for each in (*containers, *_named(spec, "initContainers", "spec")):
        _check_container(each)
    _named(spec, "volumes", "spec")
    for field in ("securityContext", "nodeSelector", "os"):
        _must(_is(spec.get(field), dict), f"spec.{field}", "a mapping")
    groups = (spec.get("securityContext") or {}).get("supplementalGroups")
    _must(_is(groups, list), "spec.securityContext.supplementalGroups", "a list")
    for field in ("serviceAccountName", "serviceAccount"):
        _must(_is(spec.get(field), str), f"spec.{field}", "text")
    grace = spec.get("terminationGracePeriodSeconds")
    _must(grace is None or type(grace) is int, "spec.terminationGracePeriodSeconds", "a whole number")


def _check_container(container: Mapping[str, Any]) -> None:
    where = f"container {container['name']}"
    _named(container, "env", where)
    _named(container, "volumeMounts", where)
    for field in ("command", "args"):
        _must(_is(container.get(field), list), f"{field} of {where}", "a list")
    ports = container.get("ports")
    whole = _is(ports, list) and all(isinstance(each, dict) for each in ports or [])
    _must(whole, f"ports of {where}", "a list of mappings")
    for field in ("startupProbe", "readinessProbe", "livenessProbe", "lifecycle"):
        value = container.get(field) or {}
        _must(_is(container.get(field), dict), f"{field} of {where}", "a mapping")
        for action in ("httpGet", "tcpSocket", "grpc"):
            _must(_is(value.get(action), dict), f"{field}.{action} of {where}", "a mapping")


def _named(holder: Mapping[str, Any], field: str, where: str) -> list[dict[str, Any]]:
    items = holder.get(field) or []
    whole = _is(holder.get(field), list) and all(
        isinstance(each, dict) and isinstance(each.get("name"), str) for each in items
    )
    _must(whole and len(items) <= MAX_CONTAINERS, f"{where}.{field}", "a list of mappings with names")
    return list(items)


def _all_text(values: Iterable[Any]) -> bool:
    return all(isinstance(each, str) for each in values)


def _is(value: Any, kind: type) -> bool:
    """Whether it is of that type, or left out."""
    return value is None or isinstance(value, kind)


def _must(holds: bool, what: str, shape: str) -> None:
    if not holds:
        raise Refusal("InvalidPod", f"{what} is not {shape}: correct the manifest")
