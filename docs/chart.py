"""What of the Helm chart is made from the code: values, their schema, definitions of custom resources.

`python docs/generate.py` writes it. The templates are written by hand, and held to
`weft kubernetes render` by tests.
"""

from __future__ import annotations

import inspect
import json
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel

from weft.kubernetes.custom_resources import custom_resource_definitions
from weft.kubernetes.installation.monitoring import DASHBOARD_FILE, RULE_FILES
from weft.kubernetes.installation.setup import PARTS
from weft.kubernetes.installation_values import FIXED_SETTINGS, GatewayValues, InstallationValues
from weft.kubernetes.manifest_text import write_manifests
from weft.model.attribute_docs import attribute_docstrings
from weft.model.names import RESERVED_TYPES

CHART: Final = Path(__file__).parents[1] / "deploy" / "helm" / "weft"
PACKAGED: Final = Path(__file__).parents[1] / "src" / "weft" / "kubernetes" / "observability"
"""What `weft kubernetes render` has of rules, alerts and dashboard."""

Schema = dict[str, Any]
"""A JSON schema, as JSON types."""

QUANTITY_PATTERN: Final = r"^[0-9]{1,18}(\.[0-9]{1,9})?(m|k|[MGTPE]|[KMGTPE]i)?$"
"""What `weft.kubernetes.agent_deployment.quantity` takes, where it is text."""

_INTEGER_OR_TEXT: Final = [{"type": "integer"}, {"type": "string"}]
_MADE: Final = "# Made from weft.kubernetes.installation_values by docs/generate.py.\n"
_WIDTH: Final = 110
_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


def definitions() -> dict[str, str]:
    """The files of the chart's `crds/`, which Helm installs before everything else, by name."""
    return {
        f"{each['spec']['names']['plural']}.yaml": write_manifests([each])
        for each in custom_resource_definitions()
    }


def schema_text(model: type[BaseModel]) -> str:
    """The schema by which Helm refuses values that `model` does not take, as JSON."""
    found = model.model_json_schema(by_alias=True, mode="validation")
    schema = _schema(found, found.get("$defs", {}), whole=True)
    return json.dumps({"$schema": _DIALECT, **schema}, indent=2, ensure_ascii=False) + "\n"


def _schema(schema: Schema, definitions: Mapping[str, Schema], *, whole: bool) -> Schema:
    """`schema` with all that it refers to in it, without titles.

    Helm looks at values after it has put those of the chart around them. So nothing can be missing there
    (where it is `whole`), unless somebody took it away by a null. What templates put defaults around may lack
    anything.
    """
    while "$ref" in schema:
        named = definitions[schema["$ref"].removeprefix("#/$defs/")]
        schema = named | {key: value for key, value in schema.items() if key != "$ref"}
    made = {
        key: value for key, value in schema.items() if key not in {"title", "default", "$defs", "required"}
    }
    if made.get("anyOf") == _INTEGER_OR_TEXT:
        del made["anyOf"]
        return made | {"type": ["integer", "string"], "minimum": 0, "pattern": QUANTITY_PATTERN}
    if "description" in made:
        made["description"] = " ".join(made["description"].split())
    if "properties" in made:
        inside = made["properties"].items()
        made["properties"] = {name: _schema(each, definitions, whole=whole) for name, each in inside}
        made |= {"required": list(made["properties"])} if whole else {}
    if "patternProperties" in made:
        inside = made["patternProperties"].items()
        made["patternProperties"] = {
            pattern: _schema(each, definitions, whole=False) for pattern, each in inside
        }
        made["additionalProperties"] = False
    if "items" in made:
        made["items"] = _schema(made["items"], definitions, whole=False)
    return made


def values_text(values: BaseModel) -> str:
    """`values` as YAML, with what is written below the fields of their models as comments."""
    return _MADE + "\n".join(_lines(values, "")) + "\n"


def _lines(values: BaseModel, indent: str) -> Iterator[str]:
    dumped = values.model_dump(mode="json", by_alias=True)
    documented = _documented(type(values))
    for name, field in type(values).model_fields.items():
        if not indent:
            yield ""
        key, value = field.alias or name, getattr(values, name)
        text = documented.get(name) or ("" if indent else _of_class(value))
        comment = f"{indent}# "
        yield from textwrap.wrap(
            " ".join(text.split()), _WIDTH, initial_indent=comment, subsequent_indent=comment
        )
        if isinstance(value, BaseModel):
            yield f"{indent}{key}:"
            yield from _lines(value, indent + "  ")
        else:
            yield from textwrap.indent(write_manifests([{key: dumped[key]}]), indent).splitlines()


def _of_class(value: Any) -> str:
    """What is said of all values of a model."""
    return (inspect.getdoc(value) or "") if isinstance(value, BaseModel) else ""


def _documented(model: type[BaseModel]) -> dict[str, str]:
    found: dict[str, str] = {}
    for each in reversed(model.__mro__):
        if each is not BaseModel and issubclass(each, BaseModel):
            found |= attribute_docstrings(each)
    return found


def templates_text() -> str:
    """What templates know besides values: defaults of each gateway, and what cannot be called or set so."""
    known = {
        "gateway": GatewayValues().model_dump(mode="json", by_alias=True),
        "fixedSettings": sorted(FIXED_SETTINGS),
        "takenNames": sorted({"default", *RESERVED_TYPES}),
        "accounts": sorted(PARTS),
    }
    return _MADE + write_manifests([known])


def observability() -> dict[str, str]:
    """Rules, alerts and dashboard of `deploy/`, which the package and the chart have too, by name."""
    deployed = CHART.parents[1]
    found = [*(deployed / "prometheus" / each for each in RULE_FILES), deployed / "grafana" / DASHBOARD_FILE]
    return {each.name: each.read_text() for each in found}


def files() -> dict[str, str]:
    """All that is made from the code, by its path in the chart."""
    return {
        **{f"observability/{name}": text for name, text in observability().items()},
        "values.yaml": values_text(InstallationValues()),
        "values.schema.json": schema_text(InstallationValues),
        "generated.yaml": templates_text(),
        **{f"crds/{name}": text for name, text in definitions().items()},
    }


def write() -> None:
    """Write the files, and remove definitions of kinds that are no more."""
    wanted = files()
    for directory in ("crds", "observability"):
        (CHART / directory).mkdir(exist_ok=True)
    for stale in {f"crds/{each.name}" for each in (CHART / "crds").iterdir()} - wanted.keys():
        (CHART / stale).unlink()
    for name, text in wanted.items():
        (CHART / name).write_text(text)
    for name, text in observability().items():
        (PACKAGED / name).write_text(text)
