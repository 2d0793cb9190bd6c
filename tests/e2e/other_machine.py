"""Another machine on the same network: a network namespace, joined to this one by a pair of interfaces."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import pytest

_PROBE = """
import json, socket, sys
host, ports, open_ = sys.argv[1], json.loads(sys.argv[2]), []
for port in ports:
    try:
        socket.create_connection((host, port), 2.0).close()
        open_.append(port)
    except OSError:
        pass
print(json.dumps(open_))
"""


class OtherMachine:
    """The namespace `name`, whose neighbour this machine is."""

    neighbour = "198.51.100.1"
    """This machine's address as the other one sees it (from a range that documentation uses)."""
    address = "198.51.100.2"

    def __init__(self, name: str) -> None:
        self._name = name

    async def reaches(self, ports: Iterable[int]) -> list[int]:
        """Those of the ports of this machine to which it can connect."""
        command = ["ip", "netns", "exec", self._name, sys.executable, "-c", _PROBE]
        process = await asyncio.create_subprocess_exec(
            *command, self.neighbour, json.dumps(list(ports)), stdout=asyncio.subprocess.PIPE
        )
        said, _ = await process.communicate()
        found: list[int] = json.loads(said)
        return found


@contextmanager
def other_machine() -> Iterator[OtherMachine]:
    """Another machine, gone when the context is left. Skips the test where the system has no such thing."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("only root can make a network namespace, and needs iproute2 for it")
    name = f"weft-{os.getpid()}"
    here, there = f"wfa{os.getpid()}"[:15], f"wfb{os.getpid()}"[:15]
    try:
        _ip("netns", "add", name)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network namespace can be made here: {error.stderr.strip()}")
    try:
        _ip("link", "add", here, "type", "veth", "peer", "name", there, "netns", name)
        _ip("address", "add", f"{OtherMachine.neighbour}/30", "dev", here)
        _ip("link", "set", here, "up")
        _ip("-n", name, "address", "add", f"{OtherMachine.address}/30", "dev", there)
        _ip("-n", name, "link", "set", there, "up")
    except subprocess.CalledProcessError as error:
        _ip("netns", "delete", name)
        pytest.skip(f"no pair of interfaces can be made here: {error.stderr.strip()}")
    try:
        yield OtherMachine(name)
    finally:
        _ip("netns", "delete", name)  # and with it, the pair


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True, timeout=30)
