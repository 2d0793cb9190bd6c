"""Running an analysis tool: a process with limits, which imports nothing from the reviewed tree."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Collection, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from tempfile import TemporaryFile

from weft.aio.temporary import temporary_parent
from weft.demo.tree import Unreadable
from weft.errors import MeshError

MAX_OUTPUT_BYTES = 16 * 1024 * 1024
"""What a tool may print about one file."""

TIMEOUT = 30.0
"""Seconds a tool may take for one file."""

_MAX_COMPLAINT_BYTES = 64 * 1024


def check_installed(tools: Collection[str]) -> None:
    """Raise MeshError, with the way out, if one of the `tools` (import names) is not installed."""
    missing = sorted(tool for tool in tools if find_spec(tool) is None)
    if missing:
        raise MeshError(
            f"the crew's tools are not installed ({', '.join(missing)}): pip install 'weft[demo]'"
        )


def tool_version(tool: str) -> str:
    """The installed version of `tool`."""
    return version(tool)


async def run_tool(
    module: str,
    *arguments: str,
    stdin: bytes = b"",
    accepted: Collection[int] = (0, 1),
    timeout: float = TIMEOUT,
) -> bytes:
    """Run `python -m module` and return what it printed.

    `accepted` are the exit codes with which it has done its work. Raises Unreadable if it ends otherwise,
    takes longer than `timeout` seconds or prints more than MAX_OUTPUT_BYTES.
    """
    # -P and a neutral directory: a module of the reviewed tree must not be imported in place of a real one.
    directory = temporary_parent()
    with TemporaryFile(dir=directory) as source:
        # A file rather than a pipe: a tool that ends before it has read everything breaks nothing.
        source.write(stdin)
        source.seek(0)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", module, *arguments),
            stdin=source,
            stdout=PIPE,
            stderr=PIPE,
            cwd=directory,
        )
    try:
        async with asyncio.timeout(timeout):
            output, complaint = await _communicate(process)
    except TimeoutError:
        raise Unreadable(f"{module} was not done with it after {timeout:g} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode not in accepted:
        raise Unreadable(f"{module} ended with exit code {process.returncode}{_last_line(complaint)}")
    return output


async def _communicate(process: Process) -> tuple[bytes, bytes]:
    assert process.stdout and process.stderr, "both are pipes"  # noqa: S101, PT018
    async with asyncio.TaskGroup() as tasks:
        output = tasks.create_task(_read(process.stdout, MAX_OUTPUT_BYTES))
        complaint = tasks.create_task(_read(process.stderr, _MAX_COMPLAINT_BYTES))
    printed = output.result()
    if len(printed) > MAX_OUTPUT_BYTES:
        raise Unreadable(f"more was found in it than {MAX_OUTPUT_BYTES} bytes can tell")
    await process.wait()
    return printed, complaint.result()


async def _read(pipe: asyncio.StreamReader, limit: int) -> bytes:
    """All that comes; one byte more than `limit` if there is more, the rest of which is thrown away."""
    content = bytearray()
    while chunk := await pipe.read(64 * 1024):
        content += chunk[: limit + 1 - len(content)]
    return bytes(content)


def _last_line(complaint: bytes) -> str:
    lines: Sequence[str] = complaint.decode(errors="replace").strip().splitlines()
    return f": {lines[-1]}" if lines else ""
