"""The directory of one mesh: its lock, its state, what NATS keeps, what the processes log."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from weft.aio.lockfile import LockHeld, hold_lock
from weft.aio.private_file import write_private
from weft.errors import Conflict, Unavailable
from weft.local.security import LocalSecurity, make_security
from weft.model.local_state import LOCK_FILE, STATE_FILE, MeshState, encode_state

LOGS = "logs"
"""In the directory of a mesh: what its processes wrote, a file each."""


class MeshHome:
    """One mesh's directory; only this user may enter it."""

    def __init__(self, directory: Path) -> None:
        """`directory` is made when it is first held."""
        self.directory = directory
        self.nats = directory / "nats"
        self.logs = directory / LOGS
        self._state = directory / STATE_FILE

    @contextmanager
    def held(self) -> Iterator[None]:
        """Own the directory for the block.

        Raises Conflict if a mesh runs in it, Unavailable if it cannot be written.
        """
        with ExitStack() as stack:
            self._take(stack)
            self.forget_state()
            stack.callback(self.forget_state)
            yield

    def forget_data(self) -> None:
        """Remove all that NATS kept: resources, registrations."""
        shutil.rmtree(self.nats, ignore_errors=True)
        self.nats.mkdir(mode=0o700)

    def secure(self, *, fresh: bool) -> LocalSecurity:
        """Make what proves who is who; `fresh` as in `make_security`. Raises Unavailable."""
        try:
            return make_security(self.directory, fresh=fresh)
        except OSError as error:
            raise Unavailable(f"{error.filename} cannot be written: {error.strerror}") from error

    def write_state(self, state: MeshState) -> None:
        """Say what runs; readers see either the old text or the new."""
        write_private(self._state, encode_state(state).encode())

    def forget_state(self) -> None:
        """Say that nothing runs."""
        self._state.unlink(missing_ok=True)

    def _take(self, stack: ExitStack) -> None:
        try:
            for each in (self.directory, self.nats, self.logs):
                each.mkdir(mode=0o700, parents=True, exist_ok=True)
            stack.enter_context(hold_lock(self.directory / LOCK_FILE))
        except LockHeld as error:
            raise Conflict(
                f"mesh {self.directory.name!r} is running already: `weft apply -f FILE` changes it, "
                f"`weft down` stops it, `--mesh NAME` starts another beside it"
            ) from error
        except OSError as error:
            raise Unavailable(
                f"the mesh's directory {self.directory} cannot be used ({error.strerror or error}): "
                f"set WEFT_HOME to one that can be written"
            ) from error
