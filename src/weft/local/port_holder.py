"""Which process listens at a port, as far as this user may know."""

from __future__ import annotations

from pathlib import Path

_TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
_LISTEN = "0A"
_LOCAL, _STATE, _INODE = 1, 3, 9


def port_holder(port: int) -> str | None:
    """The name and process id of who listens at `port`, as in `python (pid 17)`; None where it is not known.

    Known on Linux only, and only of processes whose files this user may see.
    """
    sockets = {f"socket:[{inode}]" for table in _TABLES for inode in _listeners(table, port)}
    if not sockets:
        return None
    return next((name for process in _processes() if (name := _holder(process, sockets))), None)


def _listeners(table: Path, port: int) -> list[str]:
    try:
        lines = table.read_text(encoding="ascii").splitlines()[1:]
    except OSError:
        return []
    fields = [line.split() for line in lines]
    return [
        each[_INODE]
        for each in fields
        if each[_STATE] == _LISTEN and int(each[_LOCAL].split(":")[1], 16) == port
    ]


def _processes() -> list[Path]:
    return [path for path in Path("/proc").iterdir() if path.name.isdecimal()]


def _holder(process: Path, sockets: set[str]) -> str | None:
    try:
        held = any(str(descriptor.readlink()) in sockets for descriptor in (process / "fd").iterdir())
        name = (process / "comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:  # somebody else's, or just ended
        return None
    return f"{name} (pid {process.name})" if held else None
