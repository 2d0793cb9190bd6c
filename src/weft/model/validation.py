"""What Pydantic found wrong with a manifest, in the words of manifests."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Any, get_args

from pydantic import BaseModel
from pydantic_core import ErrorDetails

MAX_SHOWN = 64
"""Characters of a given word that messages repeat."""

_MESSAGES = {
    "missing": "this field is required",
    "model_type": "must be a mapping",
    "model_attributes_type": "must be a mapping",
    "dict_type": "must be a mapping",
    "tuple_type": "must be a list",
    "bool_type": "must be true or false",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "string_sub_type": "must be text",
}
_SUBJECT = re.compile(r"^(?:Value error, |(?:Input|String|Tuple|Dictionary|Value) (?=should ))")


def explain(error: ErrorDetails, model: type[BaseModel]) -> str:
    """What is wrong, where `model` was expected as a whole."""
    match error["type"]:
        case "extra_forbidden":
            return _unknown_field(str(error["loc"][-1]), _model_at(model, error["loc"][:-1]))
        case "enum" | "literal_error":
            return _not_one_of(error)
        case "string_type":
            return _not_text(error["input"])
        case known if known in _MESSAGES:
            return _MESSAGES[known]
    message = _SUBJECT.sub("", error["msg"]).removesuffix(" after validation")
    return message.replace("should ", "must ", 1).replace(" after validation,", ",")


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """`; did you mean x?` if one of the known words is near, else `; there are` all of them."""
    known = list(known)
    by_lower = {each.lower(): each for each in known}
    near = difflib.get_close_matches(given.lower().replace("_", "")[:MAX_SHOWN], by_lower, n=1)
    return f"; did you mean {by_lower[near[0]]!r}?" if near else f"; there are {', '.join(known)}"


def shown(word: str) -> str:
    """A word from outside, quoted, and cut if it is long."""
    return repr(word if len(word) <= MAX_SHOWN else f"{word[:MAX_SHOWN]}…")


def _unknown_field(name: str, model: type[BaseModel]) -> str:
    fields = [field.alias or key for key, field in model.model_fields.items()]
    return f"there is no field {shown(name)} here{did_you_mean(name, fields)}"


def _not_one_of(error: ErrorDetails) -> str:
    expected = str(error.get("ctx", {}).get("expected", ""))
    given = error["input"]
    words = re.findall(r"'([^']*)'", expected)
    hint = (
        did_you_mean(given, words) if isinstance(given, str) and len(words) > 1 else f"; must be {expected}"
    )
    return f"{shown(str(given))} is not known here{hint}"


def _not_text(given: Any) -> str:
    if isinstance(given, bool | int | float):
        return "must be text: put it in quotes"
    return "must be text, but nothing is given" if given is None else "must be text"


def _model_at(model: type[BaseModel], path: tuple[int | str, ...]) -> type[BaseModel]:
    """The model that is expected at `path` within `model`."""
    for name in path:
        for field in model.model_fields.values():
            if field.alias == name:
                model = _model_in(field.annotation) or model
    return model


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The one model in an annotation such as `tuple[Model, ...] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((model for each in get_args(annotation) if (model := _model_in(each))), None)
