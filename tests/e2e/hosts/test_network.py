"""Hosts: whether they are cut off when they are to be, and gone in the end."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from pathlib import Path

import psutil
import pytest
from tests.e2e.hosts.network import hosts, sweep
from tests.e2e.meshes import gone

_RUN = """
import subprocess, time
from tests.e2e.hosts.network import hosts
with hosts("a", "b") as made:
    sleeper = subprocess.Popen(made["a"].runs(["sleep", "600"]), stdout=subprocess.DEVNULL)
    print(sleeper.pid, made["a"].namespace, made["b"].namespace, made["a"].switch, flush=True)
    time.sleep(600)
"""


async def test_what_a_killed_run_left_is_taken_away_by_the_next() -> None:
    with hosts("a"):  # if there can be none, it is said here
        pass
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(each for each in sys.path if each)}
    command = (sys.executable, "-c", _RUN)
    run = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, env=environ)
    assert run.stdout is not None
    pid, *namespaces = (await run.stdout.readline()).decode().split()
    sleeper = psutil.Process(int(pid))
    run.kill()
    await run.wait()
    files = [Path("/run/netns", each) for each in namespaces]
    assert len(files) == 3

    sweep()

    assert not [each for each in files if each.exists()]
    await gone(sleeper)


def test_a_host_that_is_cut_off_is_silent_until_it_joins_again() -> None:
    with hosts("a", "b") as made:
        one, other = made["a"], made["b"]
        with one.entered(), socket.create_server((one.address, 0)) as server, other.entered():
            there = server.getsockname()
            socket.create_connection(there, 30.0).close()
            one.cut_off()
            with pytest.raises(OSError, match=r"timed out|No route"):
                socket.create_connection(there, 0.5)
            one.join()
            socket.create_connection(there, 30.0).close()
