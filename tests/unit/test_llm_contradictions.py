"""Pools and Budgets that cannot work are refused before anything is written, with where the mistake is."""

from __future__ import annotations

from typing import Any

import pytest

from weft.errors import InvalidResource
from weft.model.manifest import parse_manifest
from weft.model.yaml_tree import dump

PROVIDER = {"name": "one", "url": "https://api.example.test/v1"}
SECRET = {"data": {"apiKey": "value"}}


def declared(*resources: tuple[str, str, dict[str, Any]]) -> str:
    return dump(
        [
            {"apiVersion": "weft.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}
            for kind, name, spec in resources
        ]
    )


def pool(*providers: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return {"providers": list(providers or [PROVIDER]), **spec}


@pytest.mark.parametrize(
    ("spec", "field", "message"),
    [
        (pool({"name": "one"}), "providers[0].url", "is needed with preset openai-compatible"),
        (pool({"name": "one", "preset": "azure", "model": "m"}), "providers[0].url", "is needed with preset"),
        (pool({**PROVIDER, "preset": "azure"}), "providers[0].model", "the name of the deployment"),
        (pool({**PROVIDER, "apiVersion": "1"}), "providers[0].apiVersion", "goes with preset azure only"),
        (pool({**PROVIDER, "url": "https://a.test:99999/v1"}), "providers[0].url", "has no port"),
        (pool(PROVIDER, {**PROVIDER}), "providers[1].name", "another provider of this pool"),
        (pool(models=["a", "b", "a"]), "models[2]", "stands here already"),
    ],
    ids=[
        "no url",
        "azure, no url",
        "azure, no model",
        "api version",
        "port",
        "provider twice",
        "model twice",
    ],
)
def test_a_pool_that_cannot_work_is_refused(spec: dict[str, Any], field: str, message: str) -> None:
    with pytest.raises(InvalidResource) as refused:
        parse_manifest(declared(("ModelPool", "gpt", spec)))
    [problem] = refused.value.problems
    assert field in problem.field
    assert message in problem.message


def test_what_pools_and_budgets_refer_to_must_be_there_and_a_model_has_one_pool() -> None:
    keyed = {**PROVIDER, "key": {"secret": "llm", "key": "other"}}
    lost = {**PROVIDER, "name": "two", "key": {"secret": "nowhere", "key": "apiKey"}}
    manifest = declared(
        ("Secret", "llm", SECRET),
        ("ModelPool", "gpt", pool(keyed, lost, models=["a", "*"])),
        ("ModelPool", "a", pool()),
        ("ModelPool", "rest", pool(models=["*"])),
        ("Budget", "empty", {}),
        ("Budget", "day", {"tokens": 5, "pools": ["gpt", "none"]}),
    )
    with pytest.raises(InvalidResource) as refused:
        parse_manifest(manifest)
    assert sorted(each.message for each in refused.value.problems) == [
        "ModelPool 'gpt' serves the model '*' already",
        "ModelPool 'gpt' serves the model 'a' already",
        "Secret 'llm' has no value 'other'",
        "bounds nothing: give tokens or usd or both",
        "there is no ModelPool 'none'",
        "there is no Secret 'nowhere'",
    ]


def test_presets_need_no_url_of_their_own() -> None:
    [parsed] = parse_manifest(declared(("ModelPool", "gpt", pool({"name": "one", "preset": "holysheep"}))))
    assert parsed.spec.providers[0].base_url == "https://api.holysheep.ai/v1"
