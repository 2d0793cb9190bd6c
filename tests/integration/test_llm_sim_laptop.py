"""The models that a mesh on this machine has where nobody declares any."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil
import pytest

from weft.local.default_models import POOL, SECRET, SIMULATOR, default_models, simulator_environment
from weft.local.mesh import LocalMesh
from weft.local.ports import free_ports
from weft.model.manifest import parse_manifest

LIMIT = 100.0

OWN = json.dumps(
    {
        "apiVersion": "weft.dev/v1alpha1",
        "kind": "ModelPool",
        "metadata": {"name": "own"},
        "spec": {"models": ["*"], "providers": [{"name": "here", "url": "http://127.0.0.1:9/v1"}]},
    }
)


@pytest.fixture
def home() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="wl-", dir="/tmp"))
    yield directory / "mesh"
    shutil.rmtree(directory)


def mesh(home: Path, environ: Mapping[str, str], manifest: str = "") -> LocalMesh:
    return LocalMesh(home, ports=free_ports(), environ=environ, manifest=manifest, default_models=True)


def files_with(directory: Path, text: bytes) -> list[Path]:
    return [each for each in directory.rglob("*") if each.is_file() and text in each.read_bytes()]


async def test_the_users_key_is_for_envoy_only_and_for_nothing_once_models_are_declared(home: Path) -> None:
    path = {"PATH": "/usr/bin:/bin"}
    async with asyncio.timeout(LIMIT), mesh(home, {**path, "OPENAI_API_KEY": "sk-own-key"}) as real:
        await real.wait_healthy(LIMIT)
        assert SIMULATOR not in real.children
        (provider,) = (await real.api.resource("modelpools", POOL))["spec"]["providers"]
        assert (provider["preset"], provider["key"]["secret"]) == ("openai", SECRET)
        assert psutil.Process(real.children["door"].pid).environ().get("OPENAI_API_KEY") is None

    async with asyncio.timeout(LIMIT), mesh(home, path, OWN) as declared:
        await declared.wait_healthy(LIMIT)
        assert SIMULATOR not in declared.children
        assert declared.state.models == ""
        pools = await declared.api.resources("modelpools")
        assert [each["metadata"]["name"] for each in pools] == ["own"]
        assert await declared.api.resources("secrets") == []
    assert await asyncio.to_thread(files_with, home, b"sk-own-key") == []


@pytest.mark.parametrize(
    ("environ", "provider", "url"),
    [
        ({"OPENAI_API_KEY": "sk-1", "HOLYSHEEP_API_KEY": "sk-2"}, "holysheep", None),
        (
            {"HOLYSHEEP_API_KEY": "sk-2", "HOLYSHEEP_BASE_URL": "http://127.0.0.1:1/v1"},
            "holysheep",
            "http://127.0.0.1:1/v1",
        ),
        (
            {"OPENAI_API_KEY": "sk-1", "OPENAI_BASE_URL": "http://127.0.0.1:2/v1"},
            "openai",
            "http://127.0.0.1:2/v1",
        ),
        (
            {"OPENAI_API_KEY": " ", "OPENAI_BASE_URL": "http://127.0.0.1:2/v1"},
            "llm-sim",
            "http://127.0.0.1:9400/v1",
        ),
    ],
    ids=["holysheep first", "holysheep elsewhere", "openai elsewhere", "no key"],
)
def test_the_provider_is_the_first_that_has_a_key(
    environ: dict[str, str], provider: str, url: str | None
) -> None:
    models = default_models(environ, 9400)
    spec = next(each.spec for each in parse_manifest(models.manifest) if each.kind == "ModelPool")
    (found,) = spec.providers
    assert (found.name, found.url, spec.models) == (provider, url, ("*",))
    assert "sk-" not in repr(models)
    assert models.simulated == (provider == "llm-sim")
    assert models.simulated or models.variables <= {*environ, f"{provider.upper()}_BASE_URL"}


def test_the_simulator_sees_no_key() -> None:
    environ = {
        "PATH": "/bin",
        "OPENAI_API_KEY": "sk-1",
        "WEFT_LLM_SIM_KEY": "sk-2",
        "HOLYSHEEP_API_KEY": "sk-3",
    }
    assert simulator_environment(environ) == {"PATH": "/bin"}
