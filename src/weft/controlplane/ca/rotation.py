"""How one authority makes way for the next: a state machine without I/O. The time is passed in.

An intermediate is replaced at once: who trusts the root trusts the new one, which travels with every SVID.
A root is replaced in three steps, so that no member ever meets an SVID whose root it does not know:

1. The new root is *prepared*: it enters the bundle, and signs nothing.
2. After the propagation time it *takes over*: it signs an intermediate, which issues from then on.
3. When the last SVID below the old root has expired, the old root *leaves* the bundle.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from enum import StrEnum

from weft.controlplane.ca.certificates import SigningKey, make_intermediate, make_root
from weft.controlplane.ca.lifetimes import RENEWAL, Lifetimes
from weft.controlplane.ca.state import AuthorityState, NextRoot, PreviousRoot
from weft.errors import Conflict, InvalidRequest, NotFound
from weft.identity.bundle import MAX_ROOTS, TrustBundle, federated_bundles, parse_bundle


class Level(StrEnum):
    """Which of the two authorities."""

    ROOT = "root"
    INTERMEDIATE = "intermediate"


def first_state(trust_domain: str, now: float, lifetimes: Lifetimes) -> AuthorityState:
    """A new authority for `trust_domain`."""
    root = make_root(trust_domain, now, lifetimes.root)
    issuing = make_intermediate(root, trust_domain, now, lifetimes.intermediate)
    return AuthorityState(trust_domain, root, issuing, founded_at=now)


def begin(state: AuthorityState, level: Level, now: float, lifetimes: Lifetimes) -> AuthorityState:
    """Begin to replace the authority of that level, whatever its age.

    Raises Conflict while a root is on its way already, or so many have been that the bundle is full.
    """
    if level is Level.INTERMEDIATE:
        return _with_new_intermediate(state, now, lifetimes)
    if state.next_root is not None:
        takes_over = max(0.0, state.next_root.prepared_at + lifetimes.propagation - now)
        raise Conflict(f"a new root is on its way already: it takes over in {takes_over:.0f} s")
    if len(state.previous) + 2 > MAX_ROOTS:
        leaves = max(0.0, state.previous[0].until - now)
        raise Conflict(f"the bundle is full of earlier roots; the next one leaves it in {leaves:.0f} s")
    return _prepared(state, now, lifetimes)


def advance(state: AuthorityState, now: float, lifetimes: Lifetimes) -> AuthorityState:
    """Take every step that is due. Returns `state` itself if none is."""
    state = _without_expired(state, now)
    if state.next_root is None and now >= _renewal(state.root) and len(state.previous) + 2 <= MAX_ROOTS:
        state = _prepared(state, now, lifetimes)
    if state.next_root is not None and now >= _takes_over(state, state.next_root, lifetimes):
        state = _taken_over(state, state.next_root, now, lifetimes)
    if _intermediate_due(state, now):
        state = _with_new_intermediate(state, now, lifetimes)
    return state


def due(state: AuthorityState, lifetimes: Lifetimes) -> float:
    """When the next step is due, in seconds since 1970."""
    steps = [_renewal(state.issuing), *(each.until for each in state.previous)]
    if state.next_root is None:
        steps.append(_renewal(state.root))
    else:
        steps.append(_takes_over(state, state.next_root, lifetimes))
    return min(steps)


def federate(state: AuthorityState, trust_domain: str, pem: bytes) -> AuthorityState:
    """Trust the roots in `pem`, and no others, to vouch for `trust_domain`. Raises InvalidRequest."""
    if trust_domain == state.trust_domain:
        raise InvalidRequest(f"{trust_domain!r} is this mesh's own trust domain; federate it with others")
    bundle = parse_bundle(trust_domain, pem)
    if state.federated.get(trust_domain) == bundle:
        return state
    others = [each for each in state.federated.values() if each.trust_domain != trust_domain]
    return _trusting(state, federated_bundles(state.trust_domain, [*others, bundle]))


def unfederate(state: AuthorityState, trust_domain: str) -> AuthorityState:
    """Trust nobody any more to vouch for `trust_domain`. Raises NotFound if nobody was."""
    if trust_domain not in state.federated:
        raise NotFound(f"this mesh is not federated with the trust domain {trust_domain[:300]!r}")
    return _trusting(state, {name: each for name, each in state.federated.items() if name != trust_domain})


def _trusting(state: AuthorityState, federated: Mapping[str, TrustBundle]) -> AuthorityState:
    return replace(state, federated=federated, revision=state.revision + 1)


def _renewal(authority: SigningKey) -> float:
    return authority.not_before + RENEWAL * (authority.not_after - authority.not_before)


def _intermediate_due(state: AuthorityState, now: float) -> bool:
    # Below a root at its end a new one would live no longer, and be due again at once.
    return now >= _renewal(state.issuing) and state.issuing.not_after < state.root.not_after


def _takes_over(state: AuthorityState, coming: NextRoot, lifetimes: Lifetimes) -> float:
    """When the next root is to sign; before its time if the present one has expired."""
    return min(coming.prepared_at + lifetimes.propagation, state.root.not_after)


def _prepared(state: AuthorityState, now: float, lifetimes: Lifetimes) -> AuthorityState:
    root = make_root(state.trust_domain, now, lifetimes.root)
    return replace(state, next_root=NextRoot(root, now), revision=state.revision + 1)


def _taken_over(state: AuthorityState, coming: NextRoot, now: float, lifetimes: Lifetimes) -> AuthorityState:
    # Another replica may sign with the old intermediate until it has heard of this, too.
    last = now + lifetimes.propagation + lifetimes.svid
    return replace(
        state,
        root=coming.root,
        issuing=make_intermediate(coming.root, state.trust_domain, now, lifetimes.intermediate),
        next_root=None,
        previous=(*state.previous, PreviousRoot(state.root.der, last)),
    )


def _with_new_intermediate(state: AuthorityState, now: float, lifetimes: Lifetimes) -> AuthorityState:
    issuing = make_intermediate(state.root, state.trust_domain, now, lifetimes.intermediate)
    return replace(state, issuing=issuing)


def _without_expired(state: AuthorityState, now: float) -> AuthorityState:
    kept = tuple(each for each in state.previous if now <= each.until)
    if kept == state.previous:
        return state
    return replace(state, previous=kept, revision=state.revision + 1)
