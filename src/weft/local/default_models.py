"""The pool of models that a mesh of `weft up` has where nobody declares one.

It is made of ordinary resources, marked by a label: they are replaced at every start, and removed at one at
which there is any other ModelPool.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from weft.errors import NotFound
from weft.llm_sim.settings import KEY_VARIABLE
from weft.local.control import ControlApi
from weft.model.local_state import LOOPBACK
from weft.model.manifest import parse_manifest
from weft.model.model_pool import ANY_MODEL, Preset
from weft.model.yaml_tree import dump

POOL: Final = "default"
SECRET: Final = "default-llm"  # noqa: S105 -- its name

SIMULATOR: Final = "llm-sim"
"""Name of the simulator's process."""

LABEL: Final = "made-by"
"""Label of these resources, and of no others."""
MADE_BY: Final = "weft-up"

_SOURCES = {
    Preset.HOLYSHEEP: ("HolySheep", "HOLYSHEEP_API_KEY", "HOLYSHEEP_BASE_URL"),
    Preset.OPENAI: ("OpenAI", "OPENAI_API_KEY", "OPENAI_BASE_URL"),
}
"""Whose models are taken, by which key, from where: the first that has a key."""

_API_VERSION = "weft.dev/v1alpha1"
_SECRET_KEY = "api-key"  # noqa: S105 -- its name


@dataclass(frozen=True, slots=True)
class DefaultModels:
    """The models of a mesh for which nobody declares any."""

    manifest: str = field(repr=False)
    """What to apply; may hold the key."""
    notice: str
    """A line that says which models these are."""
    variables: frozenset[str] = frozenset()
    """Environment variables that no agent is to see: with them it would go past the mesh."""
    simulated: bool = False


def default_models(environ: Mapping[str, str], simulator_port: int) -> DefaultModels:
    """Real models by the keys in `environ`, or else those of a simulator at `simulator_port`."""
    for preset, (name, key_variable, url_variable) in _SOURCES.items():
        if key := environ.get(key_variable, "").strip():
            url = environ.get(url_variable, "").strip()
            return DefaultModels(
                manifest=dump([_secret(key), _pool(_real(preset, url))]),
                notice=f"of {name}, at http://llm.mesh/v1, by {key_variable}, which agents don't see",
                variables=frozenset({key_variable, url_variable}),
            )
    keys = " or ".join(key for _, key, _ in _SOURCES.values())
    return DefaultModels(
        manifest=dump([_pool({"name": SIMULATOR, "url": f"http://{LOOPBACK}:{simulator_port}/v1"})]),
        notice=f"simulated, at http://llm.mesh/v1 (for real ones set {keys}, or declare a ModelPool)",
        simulated=True,
    )


def simulator_command(port: int) -> list[str]:
    """The simulator."""
    return [sys.executable, "-m", "weft.llm_sim", "--port", str(port)]


def simulator_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """What it gets to see: no key, and it is to ask for none."""
    hidden = {KEY_VARIABLE, *(name for _, *names in _SOURCES.values() for name in names)}
    return {name: value for name, value in environ.items() if name not in hidden}


def declares_models(manifest: str, file: str) -> bool:
    """Whether a manifest has a ModelPool. Raises InvalidResource."""
    return bool(manifest) and any(each.kind == "ModelPool" for each in parse_manifest(manifest, file))


async def others_declared(api: ControlApi) -> bool:
    """Whether there is a ModelPool that is not a default. Raises MeshError."""
    return any(not _is_default(each) for each in await api.resources("modelpools"))


async def replace_default(api: ControlApi, models: DefaultModels) -> None:
    """Have these in the place of those of an earlier start. Raises MeshError."""
    await remove_default(api)
    await api.apply(models.manifest, "the default models")


async def remove_default(api: ControlApi) -> None:
    """Remove what an earlier start has made, and nothing else. Raises MeshError."""
    for kind, name in (("modelpools", POOL), ("secrets", SECRET)):
        try:
            if _is_default(await api.resource(kind, name)):
                await api.delete(kind, name)
        except NotFound:
            continue


def _is_default(document: Mapping[str, Any]) -> bool:
    return bool((document.get("metadata", {}).get("labels") or {}).get(LABEL) == MADE_BY)


def _real(preset: Preset, url: str) -> dict[str, Any]:
    provider = {
        "name": preset.value,
        "preset": preset.value,
        "key": {"secret": SECRET, "key": _SECRET_KEY},
    }
    return provider | ({"url": url} if url else {})


def _pool(provider: Mapping[str, Any]) -> dict[str, Any]:
    return _resource("ModelPool", POOL, {"models": [ANY_MODEL], "providers": [provider]})


def _secret(key: str) -> dict[str, Any]:
    return _resource("Secret", SECRET, {"data": {_SECRET_KEY: key}})


def _resource(kind: str, name: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    metadata = {"name": name, "labels": {LABEL: MADE_BY}}
    return {"apiVersion": _API_VERSION, "kind": kind, "metadata": metadata, "spec": spec}
