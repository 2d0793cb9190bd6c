"""Hosts on one machine: network namespaces, each with an address of its own, joined by a switch.

The switch is in a namespace as well, so nothing of the machine's own network is touched, and test runs side
by side do not meet. Names tell whose they are: what a run left that was killed, the next one takes away.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

_SWITCH = "switch"
_INTERFACE = "eth0"
_BRIDGE = "lan"
_NAME = re.compile(r"weft-(\d+)-[a-z]+")
_LIMIT = 30.0
_HERE = Path("/proc/thread-self/ns/net")
_CLONE_NEWNET = 0x40000000  # sched.h


@dataclass(frozen=True, slots=True)
class Host:
    """One of them."""

    name: str
    address: str
    namespace: str
    switch: str
    """The namespace of the switch."""

    def runs(self, command: Sequence[str]) -> list[str]:
        """The command line by which `command` runs there, as the very process that is started."""
        return ["ip", "netns", "exec", self.namespace, *command]

    def cut_off(self) -> None:
        """Take its cable out: what is sent to it or by it is lost without a word."""
        _ip("-n", self.switch, "link", "set", "dev", self.name, "down")

    def join(self) -> None:
        """Put its cable in again."""
        _ip("-n", self.switch, "link", "set", "dev", self.name, "up")

    def processes(self) -> list[psutil.Process]:
        """What runs there now."""
        found = []
        for pid in _ip("netns", "pids", self.namespace).split():
            with suppress(psutil.NoSuchProcess):
                found.append(psutil.Process(int(pid)))
        return found

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Within the context this thread is there: the sockets that it makes, and the processes."""
        with _HERE.open("rb") as here, Path("/run/netns", self.namespace).open("rb") as there:
            _enter(there.fileno())
            try:
                yield
            finally:
                _enter(here.fileno())


@contextmanager
def hosts(*names: str) -> Iterator[dict[str, Host]]:
    """Hosts of these names (a few lower case letters), gone when the context is left.

    Skips the test where the system has no such thing.
    """
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("only root can make network namespaces, and needs iproute2 for it")
    sweep()
    switch = _namespace(_SWITCH)
    with ExitStack() as ends:
        try:
            _add(switch, ends)
            _ip("-n", switch, "link", "add", "name", _BRIDGE, "type", "bridge")
            _ip("-n", switch, "link", "set", _BRIDGE, "up")
            made = {
                name: _host(name, f"10.211.0.{number}", switch, ends) for number, name in enumerate(names, 1)
            }
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no network of several hosts can be made here: {error.stderr.strip()}")
        yield made


def sweep() -> None:
    """Take away what test runs left that are no more: namespaces, and what runs in them."""
    for line in _ip("netns", "list").splitlines():
        name = line.split()[0]
        owner = _NAME.fullmatch(name)
        if owner is None or psutil.pid_exists(int(owner[1])):
            continue
        # Another run may be sweeping, too.
        with suppress(subprocess.CalledProcessError):
            for pid in _ip("netns", "pids", name).split():
                with suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            _ip("netns", "delete", name)


def _host(name: str, address: str, switch: str, ends: ExitStack) -> Host:
    host = Host(name, address, _namespace(name), switch)
    _add(host.namespace, ends)
    peer = ("peer", "name", _INTERFACE, "netns", host.namespace)
    _ip("-n", switch, "link", "add", "name", name, "type", "veth", *peer)
    _ip("-n", switch, "link", "set", "dev", name, "master", _BRIDGE, "up")
    _ip("-n", host.namespace, "link", "set", "lo", "up")
    _ip("-n", host.namespace, "address", "add", f"{address}/24", "dev", _INTERFACE)
    _ip("-n", host.namespace, "link", "set", _INTERFACE, "up")
    return host


def _add(namespace: str, ends: ExitStack) -> None:
    _ip("netns", "add", namespace)
    ends.callback(_ip, "netns", "delete", namespace)


def _namespace(name: str) -> str:
    return f"weft-{os.getpid()}-{name}"


def _enter(descriptor: int) -> None:
    # os.setns is new in Python 3.12.
    if ctypes.CDLL(None, use_errno=True).setns(descriptor, _CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _ip(*arguments: str) -> str:
    done = subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True, timeout=_LIMIT)
    return done.stdout
