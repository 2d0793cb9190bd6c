"""What is written below the attributes of classes, for the documents that show it."""

from __future__ import annotations

import ast
import inspect
import textwrap
from itertools import pairwise
from typing import Any

from pydantic import BaseModel


def attribute_docstrings(owner: type) -> dict[str, str]:
    """The strings under the attributes of a class; none where its source cannot be read.

    Only those of the class itself, not of what it inherits.
    """
    try:
        source = inspect.getsource(owner)
    except OSError:
        return {}
    (definition,) = ast.parse(textwrap.dedent(source)).body
    if not isinstance(definition, ast.ClassDef):
        return {}
    return {
        name: inspect.cleandoc(following.value.value)
        for one, following in pairwise(definition.body)
        if (name := assigned_name(one))
        and isinstance(following, ast.Expr)
        and isinstance(following.value, ast.Constant)
        and isinstance(following.value.value, str)
    }


def assigned_name(statement: ast.stmt) -> str:
    """The name to which a statement assigns; empty if to none, or several."""
    targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
    (target,) = targets if len(targets) == 1 else (None,)
    return target.id if isinstance(target, ast.Name) else ""


def describe_fields(schema: dict[str, Any], model: type[BaseModel]) -> None:
    """Tell of the properties in the JSON schema of `model` what is written below its fields.

    To be a model's `json_schema_extra`. Pydantic's own `use_attribute_docstrings` does the same when a class
    is defined: each process would parse its source anew at every start, for a document few ever ask for.
    """
    described: dict[str, str] = {}
    for each in reversed(model.__mro__):
        if each is not BaseModel and issubclass(each, BaseModel):
            described |= attribute_docstrings(each)
    properties = schema.get("properties", {})
    for name, field in model.model_fields.items():
        shown = properties.get(field.alias, properties.get(name))
        if shown is not None and name in described:
            shown.setdefault("description", described[name])
