"""Which objects of Kubernetes have pods in them, and where. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Final

from weft.kubernetes.injection import Injection, InjectionSettings, inject
from weft.kubernetes.problem import Problem
from weft.model.names import MAX_NAME_LENGTH

_TEMPLATE: Final = ("spec", "template")
_TEMPLATES: Final = {
    ("v1", "Pod"): (),
    ("v1", "ReplicationController"): _TEMPLATE,
    ("apps/v1", "Deployment"): _TEMPLATE,
    ("apps/v1", "StatefulSet"): _TEMPLATE,
    ("apps/v1", "DaemonSet"): _TEMPLATE,
    ("apps/v1", "ReplicaSet"): _TEMPLATE,
    ("batch/v1", "Job"): _TEMPLATE,
    ("batch/v1", "CronJob"): ("spec", "jobTemplate", "spec", "template"),
}
_ORDINAL_LENGTH: Final = 6
"""Characters that a StatefulSet puts behind its name: a hyphen, and a number."""
_LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class InjectedDocument:
    """What became of one document."""

    document: Any
    """With sidecars in its pods; as it was, if there are none in it, or they were left out."""
    problems: tuple[tuple[str, Problem], ...] = ()
    """Each with what it is about: `Deployment/summarizer`."""

    @property
    def refused(self) -> bool:
        """Whether a sidecar was left out because of a problem."""
        return any(problem.refused for _, problem in self.problems)


def inject_document(document: Any, settings: InjectionSettings) -> InjectedDocument:
    """Put sidecars into the pods of a workload, or of all that are in a List; all else stays as it is."""
    if not isinstance(document, dict):
        return InjectedDocument(document)
    if document.get("kind") == "List" and isinstance(document.get("items"), list):
        items = [inject_document(each, settings) for each in document["items"]]
        problems = tuple(problem for each in items for problem in each.problems)
        return InjectedDocument({**document, "items": [each.document for each in items]}, problems)
    return _inject_workload(document, settings)


def _inject_workload(document: dict[str, Any], settings: InjectionSettings) -> InjectedDocument:
    path = _TEMPLATES.get((str(document.get("apiVersion")), str(document.get("kind"))))
    if path is None:
        return InjectedDocument(document)
    injection = inject(_at(document, path), settings)
    problems = list(injection.problems)
    if injection.injected:
        problems += _name_problems(document)
    named = tuple((_shown(document), each) for each in problems)
    if any(each.refused for each in problems) or not injection.injected:
        return InjectedDocument(document, named)
    return InjectedDocument(_with(document, path, injection), named)


def _at(document: dict[str, Any], path: tuple[str, ...]) -> Any:
    here: Any = document
    for step in path:
        here = here.get(step) if isinstance(here, dict) else None
    return here


def _with(document: dict[str, Any], path: tuple[str, ...], injection: Injection) -> dict[str, Any]:
    if not path:
        return injection.pod
    changed = deepcopy(document)
    _at(changed, path[:-1])[path[-1]] = injection.pod
    return changed


def _name_problems(document: dict[str, Any]) -> Iterator[Problem]:
    """A pod's name becomes the instance's, and part of host names."""
    metadata = document.get("metadata") or {}
    name, longest = metadata.get("name"), MAX_NAME_LENGTH
    if not isinstance(name, str) or not name:
        name, longest = metadata.get("generateName"), 253  # Kubernetes shortens it
        if not isinstance(name, str) or not name:
            return
        name = name.rstrip("-")
    elif document["kind"] == "StatefulSet":
        longest -= _ORDINAL_LENGTH
    elif document["kind"] != "Pod":
        longest = 253  # Kubernetes shortens it
    if len(name) > longest or not _LABEL.fullmatch(name):
        yield Problem(
            "NameUnfit",
            f"the names of its pods begin with {name!r} and become names of instances: use at most {longest} "
            f"lower-case letters, digits and hyphens, without dots",
        )


def _shown(document: dict[str, Any]) -> str:
    metadata = document.get("metadata")
    name = metadata.get("name") or metadata.get("generateName") if isinstance(metadata, dict) else None
    return f"{document['kind']}/{name or '?'}"
