"""Rotation: whatever is issued at any moment is trusted by everybody, from before it is issued to its end."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

import pytest
from tests.pki import Pki

from weft.controlplane.ca.certificates import make_svid
from weft.controlplane.ca.lifetimes import DAY, Lifetimes
from weft.controlplane.ca.rotation import Level, advance, begin, due, federate, first_state, unfederate
from weft.controlplane.ca.state import AuthorityState
from weft.errors import Conflict, InvalidRequest, NotFound
from weft.identity.bundle import TrustBundles
from weft.identity.keys import new_key
from weft.identity.svid import Svid, verify_svid
from weft.model.spiffe import agent_id

START = 1_800_000_000.0
ME = agent_id("a.example", "worker", "w1")
KEY = new_key().public_key()
BRIEF = Lifetimes(root=9000, intermediate=3000, svid=600, propagation=60)


def _issue(state: AuthorityState, now: float, lifetimes: Lifetimes) -> Svid:
    leaf = make_svid(state.issuing, KEY, ME, now=now, lifetime=lifetimes.svid)
    return Svid(ME, (leaf, state.issuing.certificate))


@dataclass(frozen=True, slots=True)
class _Moment:
    at: float
    bundles: TrustBundles
    issued: Svid


def _history(chance: random.Random, lifetimes: Lifetimes) -> list[_Moment]:
    """What a mesh trusted and issued, when it was rotated, and looked after, at any odd time."""
    now = START
    state = first_state("a.example", now, lifetimes)
    lagging = state
    moments = []
    for _ in range(120):
        before = state
        if chance.random() < 0.3:
            level = chance.choice(list(Level))
            try:
                state = begin(state, level, now, lifetimes)
            except Conflict:
                assert level is Level.ROOT
        if chance.random() < 0.8:
            state = advance(state, now, lifetimes)
        # Another replica hears of it a step later, if that is within the propagation time.
        signer = lagging if chance.random() < 0.3 else state
        moments.append(_Moment(now, state.bundles, _issue(signer, now, lifetimes)))
        step = chance.choice([0.5, 10.0, 50.0, 400.0])
        lagging = before if step <= lifetimes.propagation / 4 else state
        now += step * chance.random()
    return moments


@pytest.mark.parametrize("seed", range(12))
def test_an_svid_is_trusted_at_every_moment_of_its_life_and_by_who_has_not_heard_the_latest(
    seed: int,
) -> None:
    moments = _history(random.Random(seed), BRIEF)
    for number, moment in enumerate(moments):
        svid = moment.issued
        for other in moments[max(0, number - 60) :]:
            if moment.at - BRIEF.propagation <= other.at <= svid.not_after:
                assert verify_svid(svid, other.bundles, now=max(moment.at, other.at)) == ME


@pytest.mark.parametrize("seed", range(3))
def test_what_is_trusted_changes_only_with_its_revision(seed: int) -> None:
    moments = _history(random.Random(seed), BRIEF)
    by_revision = {each.bundles.revision: each.bundles for each in moments}
    assert all(by_revision[each.bundles.revision] == each.bundles for each in moments)
    revisions = [each.bundles.revision for each in moments]
    assert revisions == sorted(revisions)
    assert len(by_revision) > 3


def test_a_root_is_replaced_in_three_steps() -> None:
    lifetimes = Lifetimes()
    state = first_state("a.example", START, lifetimes)
    old = state.root.der
    prepared = begin(state, Level.ROOT, START, lifetimes)
    assert len(prepared.bundles.own.roots) == 2
    assert prepared.issuing == state.issuing
    with pytest.raises(Conflict, match="on its way"):
        begin(prepared, Level.ROOT, START + 1, lifetimes)
    assert advance(prepared, START + 119, lifetimes) is prepared
    assert due(prepared, lifetimes) == START + 120

    taken_over = advance(prepared, START + 120, lifetimes)
    assert taken_over.issuing.certificate.issuer == taken_over.root.certificate.subject
    assert taken_over.root.der != old
    assert set(taken_over.bundles.own.roots) == {old, taken_over.root.der}
    end = due(taken_over, lifetimes)
    assert end >= START + 120 + lifetimes.svid
    assert advance(taken_over, end, lifetimes) is taken_over

    alone = advance(taken_over, end + 1, lifetimes)
    assert alone.bundles.own.roots == (taken_over.root.der,)


def test_an_intermediate_makes_way_by_itself_after_two_thirds_of_its_life() -> None:
    lifetimes = Lifetimes()
    state = first_state("a.example", START, lifetimes)
    assert advance(state, START + 59 * DAY, lifetimes) is state
    later = advance(state, START + 60 * DAY + 60, lifetimes)
    assert later.issuing.der != state.issuing.der
    assert later.bundles == state.bundles


@pytest.mark.parametrize("absence", [100.0, 2000.0, 4000.0, 8999.0, 9100.0, 100_000.0])
def test_an_authority_that_nobody_looked_after_signs_again_at_once(absence: float) -> None:
    state = first_state("a.example", START, BRIEF)
    now = START + absence
    state = advance(state, now, BRIEF)
    assert verify_svid(_issue(state, now, BRIEF), state.bundles, now=now) == ME


def test_nothing_outlives_its_issuer_or_begins_before_it() -> None:
    state = first_state("a.example", START, BRIEF)
    assert state.issuing.not_before >= state.root.not_before
    late = state.issuing.not_after - 100
    svid = _issue(state, late, BRIEF)
    assert svid.not_after == state.issuing.not_after
    early = _issue(state, START, BRIEF)
    assert early.not_before >= state.issuing.not_before
    near_the_end = begin(state, Level.INTERMEDIATE, state.root.not_after - 50, BRIEF)
    assert near_the_end.issuing.not_after == state.root.not_after


def test_a_mesh_is_federated_with_others_by_name_and_never_with_itself() -> None:
    state = first_state("a.example", START, BRIEF)
    other = Pki("b.example", now=START)
    federated = federate(state, "b.example", other.bundle().pem)
    assert federated.bundles.of("b.example") == other.bundle()
    assert federated.revision == state.revision + 1
    assert federate(federated, "b.example", other.bundle().pem) is federated
    assert unfederate(federated, "b.example").bundles == replace(state.bundles, revision=3)
    for domain, pem in (
        ("a.example", state.bundles.own.pem),
        ("c.example", other.bundle().pem),
        ("b.example", b"garbage"),
        ("B.example", other.bundle().pem),
    ):
        with pytest.raises(InvalidRequest):
            federate(state, domain, pem)
    with pytest.raises(NotFound):
        unfederate(state, "b.example")


@pytest.mark.parametrize(
    "lifetimes",
    [{"svid": 60 * DAY}, {"root": 100 * DAY}, {"svid": 0.5}, {"propagation": 0}, {"svid": float("nan")}],
)
def test_lifetimes_that_do_not_go_together_are_refused(lifetimes: dict[str, float]) -> None:
    with pytest.raises(InvalidRequest):
        Lifetimes(**lifetimes)
