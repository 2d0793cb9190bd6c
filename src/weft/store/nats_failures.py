"""What goes wrong at a connection to NATS, as errors of Weft."""

from __future__ import annotations

import re

import nats.js.errors

from weft.errors import Conflict, Denied, MeshError, Unavailable

HUNG_UP = "it hung up in place of a welcome"

_WRONG_LAST_SEQUENCE = frozenset({10071, 10164})

_REFUSED = "this identity is refused, or the control plane, which is asked about each connection, is away"
_REFUSAL = re.compile(f"authorization|authentication|{HUNG_UP}", re.IGNORECASE)

_NO_ROOM = re.compile("insufficient (storage )?resources|resource limits exceeded", re.IGNORECASE)
_MAKE_ROOM = "its disk, or its share of it, is full: make room, or raise JetStream's limits"

_NO_SERVERS = re.compile("replicas > 1 not supported|no suitable peers", re.IGNORECASE)
_HAVE_SERVERS = (
    "there are fewer NATS servers than are to keep copies: run more of them, or lower nats_replicas"
)

_NO_LEADER = re.compile("no responders|temporarily unavailable", re.IGNORECASE)
_HAVE_A_QUORUM = "more than half of the servers that keep it must run and reach each other: see that they do"

# A stream whose disk was full answers nobody any more, until its server is started again.
_SEE = "see that nats-server runs there with JetStream on, and that its disk is not full"

_VIOLATION = re.compile(r'permissions violation for \w+ to "([^"\s]+)"', re.IGNORECASE)
"""How the server says that a subject is closed to this connection."""


class WrongRevision(Conflict):
    """The key does not stand at the revision that was expected."""


class Failures:
    """The errors of one connection, which remembers what its server said last."""

    def __init__(self, where: str, name: str, *, timeout: float, encrypted: bool) -> None:
        """Of the connection `name` to servers at `where`, whose operations may take `timeout` seconds."""
        self.reason = ""
        """What the server, or nats-py, said since the connection was begun."""
        self.clustered = False
        """Whether the server is one of several."""
        self._where = where
        self._name = name
        self._timeout = timeout
        self._encrypted = encrypted

    def note(self, error: Exception) -> str:
        """Remember what nats-py told; return the subject that is closed to this connection, if it is that."""
        self.reason = str(error) or type(error).__name__
        violation = _VIOLATION.search(self.reason)
        return violation[1].lower() if violation is not None else ""

    def unavailable(self, what: str, error: BaseException | None = None) -> Unavailable:
        """The error that tells that Weft could not do `what`."""
        reason = str(error or "") or self.reason or f"no answer within {self._timeout:g} s"
        advice = _SEE
        if _NO_SERVERS.search(reason):
            advice = _HAVE_SERVERS
        elif self.clustered and _NO_LEADER.search(reason):
            advice = _HAVE_A_QUORUM
        elif _NO_ROOM.search(reason):
            advice = _MAKE_ROOM
        elif self._encrypted and _REFUSAL.search(reason):
            advice = _REFUSED
        return Unavailable(
            f"cannot {what}: NATS at {self._where} cannot be reached or cannot do it ({reason}); {advice}"
        )

    def refusal(self, what: str, error: nats.js.errors.APIError) -> MeshError:
        """The error that tells what JetStream said to `what`."""
        if error.err_code in _WRONG_LAST_SEQUENCE:
            return WrongRevision(f"cannot {what}: it was written by somebody else meanwhile")
        return self.unavailable(what, error)

    def failure(self, what: str, error: BaseException, denied: str = "") -> MeshError:
        """The error that tells why Weft could not `what`; `denied` is the subject that is closed to it."""
        if denied:
            return Denied(
                f"cannot {what}: NATS at {self._where} does not permit {denied} to the identity "
                f"that {self._name!r} has"
            )
        return self.unavailable(what, error)
