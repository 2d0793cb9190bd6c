"""What ModelPools and Budgets say that cannot all hold: each by itself, and together with other resources."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from urllib.parse import urlsplit

from weft.model.budget import BudgetSpec
from weft.model.model_pool import DEFAULT_URLS, ModelPoolSpec, Preset, Provider
from weft.model.resource import AnyResource
from weft.model.secret import SecretSpec
from weft.model.yaml_tree import Path

RESERVED_PREFIX = "weft-"
"""Names of pools that begin so are the mesh's own."""

Found = tuple[Path, str]


def of_pool(resource: AnyResource) -> Iterator[Found]:
    """Of a ModelPool."""
    spec: ModelPoolSpec = resource.spec
    if resource.metadata.name.startswith(RESERVED_PREFIX):
        yield ("metadata", "name"), f"names that begin with {RESERVED_PREFIX!r} are the mesh's own"
    for index in _repeated(spec.models or ()):
        yield ("spec", "models", index), "stands here already"
    for index in _repeated([each.name for each in spec.providers]):
        yield ("spec", "providers", index, "name"), "another provider of this pool is called so"
    for index in _repeated([each.name for each in spec.scheduling.tenants]):
        yield ("spec", "scheduling", "tenants", index, "name"), "stands here already"
    for index, provider in enumerate(spec.providers):
        for path, message in _of_provider(provider):
            yield ("spec", "providers", index, *path), message


def _repeated(names: Sequence[str]) -> list[int]:
    """Where names stand that stood before."""
    return [index for index, name in enumerate(names) if name in names[:index]]


def _of_provider(provider: Provider) -> Iterator[Found]:
    if not provider.base_url:
        known = ", ".join(DEFAULT_URLS)
        yield ("url",), f"is needed with preset {provider.preset.value}: only {known} have one of their own"
    else:
        try:
            urlsplit(provider.base_url).port  # noqa: B018 - it raises
        except ValueError:
            yield ("url",), "has no port that there could be"
    if provider.preset is Preset.AZURE:
        if provider.model is None:
            yield ("model",), "is needed with preset azure: the name of the deployment"
    elif provider.api_version is not None:
        yield ("apiVersion",), "goes with preset azure only"
    if provider.model == "*":
        yield ("model",), "must be one model's name"
    if provider.ca is not None and not provider.base_url.startswith("https://"):
        yield ("ca",), "goes with an https URL only"


def of_budget(resource: AnyResource) -> Iterator[Found]:
    """Of a Budget."""
    spec: BudgetSpec = resource.spec
    if spec.tokens is None and spec.usd is None:
        yield ("spec",), "bounds nothing: give tokens or usd or both"


def llm_inconsistencies(resources: Collection[AnyResource]) -> Iterator[tuple[AnyResource, Path, str]]:
    """Among all resources: the one that should change, where, and why."""
    pools = [each for each in resources if isinstance(each.spec, ModelPoolSpec)]
    yield from _served_twice(pools)
    yield from _keys_that_are_not_there(pools, resources)
    names = {each.metadata.name for each in pools}
    for each in resources:
        for index, pool in enumerate(each.spec.pools or () if isinstance(each.spec, BudgetSpec) else ()):
            if pool not in names:
                yield each, ("spec", "pools", index), f"there is no ModelPool {pool!r}"


def _served_twice(pools: Collection[AnyResource]) -> Iterator[tuple[AnyResource, Path, str]]:
    owners: dict[str, str] = {}
    for pool in pools:
        spec: ModelPoolSpec = pool.spec
        for index, model in enumerate(spec.models or (pool.metadata.name,)):
            owner = owners.setdefault(model, pool.metadata.name)
            if owner != pool.metadata.name:
                path = ("spec", "models", index) if spec.models else ("metadata", "name")
                yield pool, path, f"ModelPool {owner!r} serves the model {model!r} already"


def _keys_that_are_not_there(
    pools: Collection[AnyResource], resources: Collection[AnyResource]
) -> Iterator[tuple[AnyResource, Path, str]]:
    secrets: Mapping[str, SecretSpec] = {
        each.metadata.name: each.spec for each in resources if isinstance(each.spec, SecretSpec)
    }
    for pool in pools:
        for index, provider in enumerate(pool.spec.providers):
            if provider.key is None:
                continue
            secret = secrets.get(provider.key.secret)
            place = ("spec", "providers", index, "key")
            if secret is None:
                yield pool, (*place, "secret"), f"there is no Secret {provider.key.secret!r}"
            elif provider.key.key not in secret.data:
                message = f"Secret {provider.key.secret!r} has no value {provider.key.key!r}"
                yield pool, (*place, "key"), message
