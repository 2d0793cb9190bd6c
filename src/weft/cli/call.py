"""`weft call`: one call to an agent, through the mesh."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from typing import Annotated, Any

from cyclopts import Parameter

from weft.cli.api import the_mesh
from weft.cli.options import MeshOption, Output, OutputOption
from weft.cli.payload import STANDARD_INPUT, argument, check_size, parse_json, read_file
from weft.errors import InvalidRequest, TimedOut, Unavailable
from weft.sdk.connection import check_proxy, find_proxy
from weft.sdk.destination import host_of
from weft.sdk.mesh import DEFAULT_TIMEOUT, Mesh
from weft.sdk.problem import read_error
from weft.sdk.trace import always_traced, trace_of
from weft.sdk.transport import Answer, Call, HttpTransport
from weft.sdk.wire import IDEMPOTENCY_HEADER, TRACE_HEADER

CAPABILITY_PREFIX = "cap:"
MAX_ERROR_BYTES = 64 * 1024


async def call(
    target: Annotated[str, Parameter(help="An agent type, INSTANCE.TYPE, or cap:CAPABILITY.")],
    kind: Annotated[str | None, Parameter(help="What is asked of it.")] = None,
    /,
    *arguments: Annotated[str, Parameter(help="NAME=VALUE (text) or NAME:=VALUE (JSON) of the request.")],
    data: Annotated[
        str | None,
        Parameter(help="The whole payload: JSON, @FILE, or - for standard input.", allow_leading_hyphen=True),
    ] = None,
    stream: Annotated[
        bool,
        Parameter(
            help="Ask for a stream, and print its items as they come.", negative="", show_default=False
        ),
    ] = False,
    timeout: Annotated[
        float, Parameter(help="Seconds the answer may take; of a stream, seconds of silence.")
    ] = (DEFAULT_TIMEOUT),
    header: Annotated[
        tuple[str, ...],
        Parameter(help="NAME: VALUE to send; may be repeated.", negative="", show_default=False),
    ] = (),
    idempotency_key: Annotated[
        str | None, Parameter(help="Makes the call repeatable: an agent processes the same key once.")
    ] = None,
    trace: Annotated[
        bool,
        Parameter(
            help="Have this call traced, and print the id of its trace on stderr.",
            negative="",
            show_default=False,
        ),
    ] = False,
    path: Annotated[
        str | None, Parameter(help="For agents that know no kinds: plain HTTP to this path.")
    ] = None,
    method: Annotated[
        str | None, Parameter(help="HTTP method with --path (default: GET, with --data POST).")
    ] = None,
    proxy: Annotated[
        str | None, Parameter(help="Address of a sidecar (default: $WEFT_PROXY, or the mesh's door here).")
    ] = None,
    mesh: MeshOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Call an agent.

    `weft call summarizer summarize text="A long text" length:=20`

    `weft call cap:review review --data @request.json --stream`

    `weft call weather --path /today`
    """
    if timeout <= 0:
        raise InvalidRequest("--timeout must be more than 0 seconds")
    door = find_door(proxy, mesh)
    to = _destination(target)
    headers = dict(_header(each) for each in header)
    if trace:
        headers = _traced(headers)
    if path is not None:
        if kind is not None:
            raise InvalidRequest("give either KIND or --path, not both")
        if idempotency_key is not None:
            headers[IDEMPOTENCY_HEADER] = idempotency_key
        await _plain(door, _plain_call(to, path, method, headers, data), timeout)
        return
    if kind is None:
        raise InvalidRequest(
            f"say what {target} is asked: `weft call {target} KIND`, or --path for plain HTTP"
        )
    payload = {**whole_payload(data), **dict(argument(each) for each in arguments)}
    async with Mesh(proxy=door) as client:
        if stream:
            items = client.stream(to, kind, payload, idle_timeout=timeout, headers=headers)
            async with aclosing(items):
                await _print_items(items, output)
        else:
            result = await client.request(
                to, kind, payload, timeout=timeout, headers=headers, idempotency_key=idempotency_key
            )
            print_value(result, output)


def find_door(proxy: str | None, mesh: str | None) -> str:
    """The sidecar by which a command calls: as named, else that of the environment, else the mesh's here.

    Raises InvalidRequest, Unavailable.
    """
    if proxy is not None:
        return check_proxy(proxy, "--proxy")
    if mesh is not None:
        return the_mesh(mesh).proxy_url
    try:
        return find_proxy(os.environ)
    except Unavailable:
        return the_mesh(None).proxy_url  # says what someone at a terminal can do about it


def _destination(target: str) -> str:
    if target.startswith(CAPABILITY_PREFIX):
        return f"{target.removeprefix(CAPABILITY_PREFIX)}.cap"
    return target


def _traced(headers: Mapping[str, str]) -> dict[str, str]:
    """`headers` of a call that is traced whatever else is; tells of which trace it is."""
    found = always_traced({name.lower(): value for name, value in headers.items()})
    print(f"trace: {trace_of(found[TRACE_HEADER])}", file=sys.stderr)
    return found


def _header(text: str) -> tuple[str, str]:
    name, separator, value = text.partition(":")
    if not separator or not name.strip() or not text.isprintable():
        raise InvalidRequest(f"header {text!r} is not NAME: VALUE")
    return name.strip(), value.strip()


def whole_payload(data: str | None) -> dict[str, Any]:
    """What `--data` gives of a payload. Raises InvalidRequest."""
    if data is None:
        return {}
    payload = parse_json(_read(data), "--data")
    if not isinstance(payload, dict):
        raise InvalidRequest("--data must be a JSON object: its members are the request's arguments")
    return payload


def _read(data: str) -> bytes:
    """What --data stands for: itself, a file, or standard input."""
    if data.startswith("@"):
        return read_file(data[1:])
    return read_file(data) if data == STANDARD_INPUT else check_size(data.encode(), "--data")


async def _print_items(items: AsyncIterator[Any], output: Output) -> None:
    async for item in items:
        if output is Output.JSON:
            print(json.dumps(item, ensure_ascii=False), flush=True)
        else:
            print(_text(item), flush=True)


def print_value(value: Any, output: Output) -> None:
    """Print what a call came to."""
    print(json.dumps(value, indent=2, ensure_ascii=False) if output is Output.JSON else _text(value))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)


def _plain_call(to: str, path: str, method: str | None, headers: Mapping[str, str], data: str | None) -> Call:
    if not path.startswith("/") or not path.isprintable() or " " in path:
        raise InvalidRequest(f"--path must begin with / and hold no spaces, not {path!r}")
    verb = method or ("GET" if data is None else "POST")
    if not verb.isalpha():
        raise InvalidRequest(f"{verb!r} is no HTTP method")
    return Call(verb.upper(), host_of(to), path, headers, b"" if data is None else _read(data))


async def _plain(door: str, request: Call, timeout: float) -> None:
    """Send `request` and print what comes back, as it comes."""
    transport = HttpTransport(door)
    try:
        async with asyncio.timeout(timeout), transport.exchange(request) as answer:
            if answer.status >= 400:
                raise read_error(request.host, answer.status, answer.headers, await _error_body(answer))
            async for chunk in answer.chunks():
                sys.stdout.buffer.write(chunk)
                sys.stdout.buffer.flush()
    except TimeoutError:
        raise TimedOut(f"{request.host} did not answer completely within {timeout:g} seconds") from None
    finally:
        await transport.aclose()


async def _error_body(answer: Answer) -> bytes:
    parts: list[bytes] = []
    async for chunk in answer.chunks():
        parts.append(chunk)
        if sum(map(len, parts)) > MAX_ERROR_BYTES:
            break
    return b"".join(parts)[:MAX_ERROR_BYTES]
