"""The values of the Helm chart: Helm refuses those that `weft kubernetes render` refuses, and says why."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import re2
import yaml
from docs import chart
from jsonschema import Draft202012Validator
from tests.helm_chart import CHART, Refused, missing, template
from tests.kubernetes_documents import Document

from weft.errors import InvalidRequest, InvalidResource
from weft.kubernetes.agent_deployment import quantity
from weft.kubernetes.installation import installation
from weft.kubernetes.installation_values import (
    GatewayValues,
    InstallationValues,
    overlaid,
    read_values,
)

with_helm = pytest.mark.skipif(missing() is not None, reason=str(missing()))

REFUSED: dict[str, tuple[Document, str]] = {
    "an unknown value": ({"replicas": 3}, "additional properties 'replicas' not allowed"),
    "an unknown value further in": ({"nats": {"nodes": 3}}, "at '/nats': additional properties 'nodes' not"),
    "text for a number": (
        {"control": {"replicas": "three"}},
        "'/control/replicas': got string, want integer",
    ),
    "an even number of servers": ({"nats": {"replicas": 2}}, "'/nats/replicas'"),
    "too many": ({"control": {"replicas": 10}}, "'/control/replicas': maximum: got 10, want 9"),
    "none": ({"webhook": {"replicas": 0}}, "'/webhook/replicas': minimum: got 0, want 1"),
    "what is taken away": ({"nats": {"replicas": None}}, "at '/nats': missing property 'replicas'"),
    "a quantity that is none": (
        {"control": {"resources": {"limits": {"memory": "much"}}}},
        "'/control/resources/limits/memory': 'much' does not match pattern",
    ),
    "a digest that is none": ({"image": {"digest": "sha256:1"}}, "'/image/digest'"),
    "a name that is none": ({"nats": {"storage": {"className": "Fast!"}}}, "'/nats/storage/className'"),
    "a kind of Service that is none": (
        {"gateways": {"front": {"service": {"type": "ExternalName"}}}},
        "'/gateways/front/service/type'",
    ),
    "an unknown value of a gateway": (
        {"gateways": {"front": {"tls": "x"}}},
        "at '/gateways/front': additional properties 'tls' not allowed",
    ),
    "a gateway that cannot be called so": ({"gateways": {"Front_1": {}}}, "'/gateways'"),
    "a gateway whose name is too long": ({"gateways": {"f" * 25: {}}}, "a gateway's name is 1 to 24"),
    "a gateway called as what the mesh answers at": (
        {"gateways": {"control": {}}},
        "gateways.control: that name means something else already",
    ),
    "a gateway called as everybody's account": (
        {"gateways": {"default": {}}},
        "gateways.default: that name means something else already",
    ),
    "text for yes or no": ({"webhook": {"enabled": "no"}}, "at '/webhook/enabled': got string, want boolean"),
    "a namespace that is none": ({"controller": {"secretsIn": ["Team A"]}}, "'/controller/secretsIn/0'"),
    "a setting of something else": ({"control": {"settings": {"PATH": "/"}}}, "'/control/settings'"),
    "a setting that follows from others": (
        {"control": {"settings": {"WEFT_CONTROL_NATS": "[]"}}},
        "control.settings.WEFT_CONTROL_NATS is the installation's own",
    ),
    "the tag latest": ({"image": {"tag": "latest"}}, "the tag latest is another image tomorrow"),
    "a request above its limit": (
        {"webhook": {"resources": {"requests": {"cpu": "1500m"}}}},
        "webhook.resources.requests.cpu (1500m) is above webhook.resources.limits.cpu (1)",
    ),
    "a request of a gateway above its limit": (
        {"gateways": {"front": {"resources": {"limits": {"memory": "100M"}}}}},
        "front.resources.requests.memory (384Mi) is above gateways.front.resources.limits.memory (100M)",
    ),
    "more in a volume than its size": (
        {"nats": {"storage": {"size": "5Gi"}}},
        "nats.storage.most (8Gi) is above nats.storage.size (5Gi)",
    ),
    "fewer at most than at least": (
        {"gateways": {"front": {"replicas": {"least": 5, "most": 4}}}},
        "gateways.front.replicas: least (5) is above most (4)",
    ),
}


@with_helm
@pytest.mark.parametrize(("values", "text"), REFUSED.values(), ids=REFUSED.keys())
def test_helm_refuses_bad_values_and_says_which(values: Document, text: str) -> None:
    with pytest.raises(Refused) as refused:
        template(values)
    assert text in " ".join(str(refused.value).split())


@pytest.mark.parametrize("values", [values for values, _ in REFUSED.values()], ids=REFUSED.keys())
def test_weft_refuses_the_same_values(values: Document) -> None:
    with pytest.raises(InvalidResource):
        read_values(values)


@with_helm
def test_a_gateway_with_the_account_of_a_part_is_refused_by_both() -> None:
    gateway: Document = {"gateways": {"mesh-nats": {}}}
    with pytest.raises(Refused, match="mesh-nats would have the service account of a part"):
        template(gateway, release="mesh")
    with pytest.raises(InvalidRequest, match="would have the service account of a part"):
        installation(read_values(gateway), name="mesh")


NAMES = ["Weft", "1weft", "weft-", f"a{'b' * 24}"]


@with_helm
@pytest.mark.parametrize("name", NAMES)
def test_helm_refuses_a_release_whose_name_is_none_here(name: str) -> None:
    with pytest.raises(Refused, match="name"):
        template(release=name)


@pytest.mark.parametrize("name", NAMES)
def test_weft_refuses_the_same_names(name: str) -> None:
    with pytest.raises(InvalidRequest):
        installation(name=name)


@pytest.mark.parametrize("text", ["2", "0.5", "500m", "1k", "2Gi", "10E", "", "m", "2g", "-1", "1e3", "1 Gi"])
def test_the_schema_takes_for_a_quantity_what_the_code_does(text: str) -> None:
    try:
        quantity(text)
        taken = True
    except ValueError:
        taken = False
    assert (re2.search(chart.QUANTITY_PATTERN, text) is not None) == taken


def _paths(values: Document, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Where something stands in values."""
    for name, value in values.items():
        yield (*above, name)
        if isinstance(value, dict):
            yield from _paths(value, (*above, name))


def _at(path: tuple[str, ...], value: Any) -> Document:
    """Values that say `value` there, and nothing else."""
    first, *rest = path
    return {first: _at(tuple(rest), value) if rest else value}


_DEFAULTS: Document = yaml.safe_load(chart.values_text(InstallationValues()))
_GATEWAY: Document = GatewayValues().model_dump(mode="json", by_alias=True)
_PLACES = [*_paths(_DEFAULTS), *(("gateways", "front", *each) for each in _paths(_GATEWAY))]
_ODD = ["", -1, 0, 3, 2000, 0.5, True, "a.b", "X y", "-a", "10Gi", "30s", "x" * 300, ["x"], [{}], {"x": "y"}]
_BY_TEMPLATES = ("is above", "latest", "own: leave it out")
"""What weft says where a schema cannot."""


def _refusal(values: Document) -> str:
    """What weft says against values; empty where it takes them."""
    try:
        read_values(values)
    except InvalidResource as refused:
        return str(refused)
    return ""


@pytest.mark.parametrize("path", _PLACES, ids=".".join)
def test_the_schema_takes_what_weft_takes_and_refuses_what_it_refuses(path: tuple[str, ...]) -> None:
    schema = Draft202012Validator(json.loads((CHART / "values.schema.json").read_text()))
    for odd in _ODD:
        values = _at(path, odd)
        said = [each.message for each in schema.iter_errors(overlaid(_DEFAULTS, values))]
        refusal = _refusal(values)
        if not said:
            assert not refusal or any(each in refusal for each in _BY_TEMPLATES), f"{values}: {refusal}"
        elif (path, odd) != (("nats", "replicas"), True):
            assert refusal, f"{values}: {said}"
