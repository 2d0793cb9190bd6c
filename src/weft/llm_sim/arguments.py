"""The command line of `python -m weft.llm_sim`, and its file: every field of Behaviour is an option."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, StringConstraints, ValidationError

from weft.errors import InvalidRequest
from weft.llm_sim.behaviour import Behaviour, explained
from weft.llm_sim.settings import DEFAULT_PORT, KEY_VARIABLE, SimSettings
from weft.model.attribute_docs import attribute_docstrings
from weft.model.local_state import LOOPBACK
from weft.model.spec import MAX_ITEMS, ShortText
from weft.model.yaml_tree import NotYaml, trees

MAX_FILE_BYTES = 1024 * 1024
MAX_RECORD = 10_000

_Key = Annotated[str, StringConstraints(min_length=1, max_length=1024, pattern=r"^[\x21-\x7e]+$")]


class SimFile(Behaviour):
    """What a file for `--config` holds: the fields of Behaviour, and keys."""

    keys: Annotated[dict[ShortText, _Key], Field(max_length=MAX_ITEMS)] = {}
    """Keys that are asked for, by the names that counters have."""


def parse_arguments(arguments: Sequence[str], environ: Mapping[str, str]) -> SimSettings:
    """The settings that the command line asks for. Raises InvalidRequest.

    Prints help or a usage error and raises SystemExit (0 or 2), as argparse does.
    """
    given = vars(argument_parser().parse_args(arguments))
    host, port, seed, record = (given.pop(name) for name in ("host", "port", "seed", "record"))
    with_stdin = given.pop("stop_with_stdin")
    if not 0 <= port <= 65535:
        raise InvalidRequest(f"--port {port} is no port")
    if not 0 <= record <= MAX_RECORD or not -(2**63) <= seed < 2**63:
        raise InvalidRequest(f"--record takes 0 to {MAX_RECORD}, --seed a whole number of 64 bits")
    path = given.pop("config")
    file = SimFile() if path is None else _read(path)
    keys = dict(file.keys)
    if key := environ.get(KEY_VARIABLE):
        keys["environment"] = key
    return SimSettings(host, port, seed, record, with_stdin, _behaviour(file, given), keys)


def argument_parser() -> argparse.ArgumentParser:
    """The options of `python -m weft.llm_sim`."""
    parser = argparse.ArgumentParser(
        prog="weft llm-sim",
        description="A simulated provider of models, with OpenAI's API. Says in every answer that it is one.",
        epilog=f"Times are such as 300ms or 2s. A key that callers must have: ${KEY_VARIABLE}, or the file's "
        "`keys`.",
        allow_abbrev=False,
    )
    parser.add_argument("--host", default=LOOPBACK, help="address to listen at (default: %(default)s)")
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help="0: any (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="decides what is left to chance")
    parser.add_argument("--record", type=int, default=0, help="requests that GET /sim/requests shows")
    parser.add_argument("--stop-with-stdin", action="store_true", help="stop when standard input ends")
    parser.add_argument(
        "--config", type=Path, help="YAML with these settings (answerTokens: 5, ...) and keys"
    )
    described = attribute_docstrings(Behaviour)
    for name, field in Behaviour.model_fields.items():
        flag = "--" + name.replace("_", "-")
        help_ = described.get(name, "").replace("%", "%%").replace("`", "")
        if field.annotation is bool:
            parser.add_argument(
                flag, dest=name, default=argparse.SUPPRESS, action=argparse.BooleanOptionalAction, help=help_
            )
        elif name == "models":
            parser.add_argument(flag, dest=name, default=argparse.SUPPRESS, nargs="+", help=help_)
        else:
            parser.add_argument(flag, dest=name, default=argparse.SUPPRESS, help=help_)
    return parser


def _behaviour(file: SimFile, given: Mapping[str, Any]) -> Behaviour:
    settings = file.model_dump(exclude={"keys"})
    try:
        return Behaviour.model_validate({**settings, **given}, by_name=True)
    except ValidationError as error:
        raise InvalidRequest(explained(error, "--", Behaviour).replace("_", "-")) from error


def _read(path: Path) -> SimFile:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
        text = content.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"--config {path} cannot be read: {error}") from error
    if len(content) > MAX_FILE_BYTES:
        raise InvalidRequest(f"--config {path} is larger than {MAX_FILE_BYTES} bytes")
    try:
        found = list(trees(text))
    except NotYaml as error:
        raise InvalidRequest(f"{path}:{error.line}: {error}") from error
    if not found:
        return SimFile()
    problems = [f"{path}:{each.line}: {each.message}" for each in found[0].problems]
    if len(found) > 1:
        problems.append(f"{path}: holds more than one document")
    if problems:
        raise InvalidRequest("\n".join(problems))
    try:
        return SimFile.model_validate(found[0].value)
    except ValidationError as error:
        raise InvalidRequest(explained(error, f"{path}: ", SimFile)) from error
