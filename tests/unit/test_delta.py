"""The incremental xDS protocol for one type of resource."""

from __future__ import annotations

import pytest
from tests.xds import Resources, bare

from weft.controlplane.xds.delta import (
    MAX_NAME_LENGTH,
    MAX_NAMES,
    Acknowledged,
    Rejected,
    Request,
    Response,
    Subscription,
)
from weft.controlplane.xds.snapshot import CLUSTER, ENDPOINTS, LISTENER
from weft.errors import InvalidRequest


class Talk:
    """A subscription, and the sentences tests say to it."""

    def __init__(self, type_url: str = CLUSTER) -> None:
        self.subscription = Subscription(type_url)
        self._nonce = 0

    def ask(self, *subscribe: str, unsubscribe: tuple[str, ...] = (), **initial: str) -> None:
        self.subscription.receive(
            Request(self.subscription.type_url, subscribe, unsubscribe, initial_versions=initial)
        )

    def take(self, resources: Resources, *, removals: bool = True) -> Response | None:
        self._nonce += 1
        return self.subscription.take(resources, str(self._nonce), removals=removals)

    def expect(self, resources: Resources, *, removals: bool = True) -> Response:
        response = self.take(resources, removals=removals)
        assert response is not None
        return response

    def ack(self, response: Response) -> None:
        verdict = self.subscription.receive(Request(response.type_url, nonce=response.nonce))
        assert verdict == Acknowledged(response)

    def nack(self, response: Response, reason: str = "no") -> Rejected:
        verdict = self.subscription.receive(Request(response.type_url, nonce=response.nonce, error=reason))
        assert isinstance(verdict, Rejected)
        return verdict

    def holds(self, resources: Resources) -> None:
        """Bring the client to hold `resources`."""
        self.ack(self.expect(resources))


def versions(response: Response | None) -> dict[str, str]:
    """What a response brings, by name."""
    return {} if response is None else {each.name: each.version for each in response.resources}


@pytest.mark.parametrize("type_url", [CLUSTER, LISTENER])
def test_an_empty_first_request_is_a_wildcard_for_clusters_and_listeners(type_url: str) -> None:
    talk = Talk(type_url)
    talk.ask()
    assert versions(talk.take(bare(a="1", b="1"))) == {"a": "1", "b": "1"}


def test_an_empty_first_request_for_endpoints_asks_for_nothing() -> None:
    talk = Talk(ENDPOINTS)
    talk.ask()
    assert talk.take(bare(a="1")) is None


def test_nothing_is_sent_before_the_client_asks() -> None:
    assert Talk().take(bare(a="1")) is None


def test_an_explicit_wildcard_gets_everything() -> None:
    talk = Talk(ENDPOINTS)
    talk.ask("*")
    assert versions(talk.take(bare(a="1", b="1"))) == {"a": "1", "b": "1"}


def test_a_wildcard_is_answered_even_if_there_is_nothing() -> None:
    talk = Talk()
    talk.ask()
    response = talk.expect({})
    assert (response.resources, response.removed) == ((), ())


def test_only_names_subscribed_to_are_sent() -> None:
    talk = Talk(ENDPOINTS)
    talk.ask("a")
    assert versions(talk.take(bare(a="1", b="1"))) == {"a": "1"}


def test_a_later_empty_request_without_nonce_changes_nothing() -> None:
    talk = Talk(ENDPOINTS)
    talk.ask("a")
    talk.holds(bare(a="1"))
    talk.ask()
    assert talk.take(bare(a="1", b="1")) is None


def test_only_what_changed_is_sent() -> None:
    talk = Talk()
    talk.ask()
    talk.holds(bare(a="1", b="1"))
    assert versions(talk.take(bare(a="1", b="2", c="1"))) == {"b": "2", "c": "1"}


def test_an_unchanged_mapping_with_equal_versions_sends_nothing() -> None:
    talk = Talk()
    talk.ask()
    talk.holds(bare(a="1"))
    assert talk.take(bare(a="1")) is None


def test_what_is_gone_is_removed_once() -> None:
    talk = Talk()
    talk.ask()
    talk.holds(bare(a="1", b="1"))
    response = talk.expect(bare(a="1"))
    assert (versions(response), response.removed) == ({}, ("b",))
    talk.ack(response)
    assert talk.take(bare(a="1")) is None


def test_a_name_that_does_not_exist_is_answered_as_removed_and_sent_when_it_appears() -> None:
    talk = Talk(ENDPOINTS)
    talk.ask("later")
    response = talk.expect({})
    assert response.removed == ("later",)
    talk.ack(response)
    assert talk.take({}) is None
    assert versions(talk.take(bare(later="1"))) == {"later": "1"}


def test_names_can_be_added_and_dropped() -> None:
    talk = Talk(ENDPOINTS)
    talk.ask("a")
    talk.holds(bare(a="1", b="1"))
    talk.ask("b", unsubscribe=("a",))
    response = talk.expect(bare(a="2", b="1"))
    assert (versions(response), response.removed) == ({"b": "1"}, ())


def test_a_dropped_name_is_not_reported_removed() -> None:
    talk = Talk(ENDPOINTS)
    talk.ask("a")
    talk.holds(bare(a="1"))
    talk.ask(unsubscribe=("a",))
    assert talk.take({}) is None


def test_a_name_asked_for_again_is_sent_again_though_it_has_not_changed() -> None:
    talk = Talk(ENDPOINTS)
    talk.ask("a", "b")
    resources = bare(a="1", b="1")
    talk.holds(resources)
    talk.ask("a")
    assert versions(talk.take(resources)) == {"a": "1"}


def test_a_name_dropped_and_wanted_again_in_one_request_stays_subscribed() -> None:
    talk = Talk(ENDPOINTS)
    talk.ask("a")
    talk.holds(bare(a="1"))
    talk.ask("a", unsubscribe=("a",))
    assert versions(talk.take(bare(a="1"))) == {"a": "1"}


def test_dropping_the_wildcard_leaves_the_names_subscribed_to() -> None:
    talk = Talk()
    talk.ask("*", "a")
    talk.holds(bare(a="1", b="1"))
    talk.ask(unsubscribe=("*",))
    response = talk.expect(bare(a="2", b="2"))
    assert (versions(response), response.removed) == ({"a": "2"}, ())


def test_dropping_a_name_under_a_wildcard_is_answered_with_the_resource() -> None:
    talk = Talk()
    talk.ask("*", "a")
    talk.holds(bare(a="1", b="1"))
    talk.ask(unsubscribe=("a",))
    assert versions(talk.take(bare(a="1", b="1"))) == {"a": "1"}


def test_dropping_a_missing_name_under_a_wildcard_is_answered_as_removed() -> None:
    talk = Talk()
    talk.ask("*", "a")
    talk.holds(bare(b="1"))
    talk.ask(unsubscribe=("a",))
    assert talk.expect(bare(b="1")).removed == ("a",)


def test_a_client_that_comes_back_gets_only_what_differs() -> None:
    talk = Talk()
    talk.ask(same="1", changed="1", vanished="1")
    response = talk.expect(bare(same="1", changed="2", new="1"))
    assert versions(response) == {"changed": "2", "new": "1"}
    assert response.removed == ("vanished",)
    assert talk.subscription.resumed


def test_a_client_that_comes_back_up_to_date_gets_nothing() -> None:
    for talk, names in ((Talk(CLUSTER), ()), (Talk(CLUSTER), ("*",)), (Talk(ENDPOINTS), ("a", "b"))):
        talk.ask(*names, a="1", b="1")
        assert talk.take(bare(a="1", b="1")) is None


def test_a_name_without_initial_version_is_sent_to_a_client_that_comes_back() -> None:
    talk = Talk(ENDPOINTS)
    talk.ask("a", "b", a="1")
    assert versions(talk.take(bare(a="1", b="1"))) == {"b": "1"}


def test_initial_versions_of_names_not_subscribed_to_are_ignored() -> None:
    talk = Talk(ENDPOINTS)
    talk.ask("a", a="1", other="1")
    assert talk.take(bare(a="1")) is None


def test_initial_versions_count_in_the_first_request_only() -> None:
    talk = Talk()
    talk.ask()
    talk.holds(bare(a="1"))
    talk.ask(a="2")
    assert versions(talk.take(bare(a="2"))) == {"a": "2"}


def test_one_response_is_outstanding_and_what_changes_meanwhile_is_coalesced() -> None:
    talk = Talk()
    talk.ask()
    first = talk.expect(bare(a="1"))
    assert talk.take(bare(a="2")) is None
    assert talk.take(bare(a="3", b="1")) is None
    talk.ack(first)
    assert versions(talk.take(bare(a="3", b="1"))) == {"a": "3", "b": "1"}


def test_a_change_and_its_reversal_while_waiting_send_nothing() -> None:
    talk = Talk()
    talk.ask()
    first = talk.expect(bare(a="1"))
    assert talk.take(bare(a="2")) is None
    talk.ack(first)
    assert talk.take(bare(a="1")) is None


def test_a_stale_nonce_is_no_verdict_but_its_subscriptions_count() -> None:
    talk = Talk(ENDPOINTS)
    talk.ask("a")
    response = talk.expect(bare(a="1", b="1"))
    stale = Request(ENDPOINTS, ("b",), nonce="stale", error="no")
    assert talk.subscription.receive(stale) is None
    assert talk.subscription.outstanding
    talk.ack(response)
    assert versions(talk.take(bare(a="1", b="1"))) == {"b": "1"}


def test_an_answer_given_twice_counts_once() -> None:
    talk = Talk()
    talk.ask()
    response = talk.expect(bare(a="1"))
    talk.ack(response)
    assert talk.subscription.receive(Request(CLUSTER, nonce=response.nonce, error="no")) is None
    assert talk.take(bare(a="1")) is None


def test_an_error_that_answers_nothing_is_ignored() -> None:
    talk = Talk()
    talk.ask()
    talk.holds(bare(a="1"))
    assert talk.subscription.receive(Request(CLUSTER, error="no")) is None
    assert talk.subscription.rejected == ()


def test_a_rejected_version_is_not_sent_again_but_a_newer_one_is() -> None:
    talk = Talk()
    talk.ask()
    talk.holds(bare(a="1", b="1"))
    verdict = talk.nack(talk.expect(bare(a="2", b="1")), "bad a")
    assert (verdict.reason, verdict.isolated) == ("bad a", True)
    assert talk.subscription.rejected == ("a",)
    assert talk.take(bare(a="2", b="1")) is None
    assert versions(talk.take(bare(a="2", b="2"))) == {"b": "2"}


def test_a_newer_version_of_what_was_rejected_is_sent() -> None:
    talk = Talk()
    talk.ask()
    talk.nack(talk.expect(bare(a="1")))
    newer = bare(a="2")
    talk.holds(newer)
    assert talk.subscription.rejected == ()
    assert talk.subscription.in_sync(newer)


def test_going_back_to_the_version_held_sends_nothing_and_ends_the_rejection() -> None:
    talk = Talk()
    talk.ask()
    talk.holds(bare(a="1"))
    talk.nack(talk.expect(bare(a="2")))
    back = bare(a="1")
    assert talk.take(back) is None
    assert talk.subscription.in_sync(back)


def test_a_rejected_version_is_sent_if_it_is_asked_for_by_name() -> None:
    talk = Talk(ENDPOINTS)
    talk.ask("a")
    talk.nack(talk.expect(bare(a="1")))
    talk.ask("a")
    assert versions(talk.take(bare(a="1"))) == {"a": "1"}


def test_removing_what_was_rejected_ends_the_rejection() -> None:
    talk = Talk()
    talk.ask()
    talk.holds({})
    talk.nack(talk.expect(bare(a="1")))
    gone: Resources = {}
    assert talk.take(gone) is None
    assert talk.subscription.in_sync(gone)


@pytest.mark.parametrize("bad", [{"d"}, {"a", "h"}, {"b", "c", "g"}, set("abcdefgh")])
def test_one_bad_resource_does_not_hold_back_the_good_ones(bad: set[str]) -> None:
    talk = Talk(ENDPOINTS)
    resources = bare(**dict.fromkeys("abcdefgh", "1"))
    talk.ask(*resources)
    held: set[str] = set()
    culprits: set[str] = set()
    while (response := talk.take(resources)) is not None:
        names = versions(response).keys()
        if not names & bad:
            talk.ack(response)
            held |= names
        elif talk.nack(response).isolated:
            culprits |= names
    assert held == set("abcdefgh") - bad
    assert culprits == bad
    assert talk.subscription.rejected == tuple(sorted(bad))


def test_a_good_resource_refused_beside_a_bad_one_is_sent_again_though_it_had_not_changed() -> None:
    talk = Talk(ENDPOINTS)
    talk.ask("a", "b")
    talk.holds(bare(a="1", b="1"))
    talk.subscription.renew(["a"])
    refused = talk.expect(bare(a="1", b="2"))
    assert versions(refused) == {"a": "1", "b": "2"}
    talk.nack(refused)
    sent = [talk.expect(bare(a="1", b="2"))]
    talk.ack(sent[0])
    sent.append(talk.expect(bare(a="1", b="2")))
    assert {name for response in sent for name in versions(response)} == {"a", "b"}


def test_newer_versions_are_sent_while_a_culprit_is_looked_for() -> None:
    talk = Talk()
    talk.ask()
    talk.nack(talk.expect(bare(a="1", b="1")))
    fixed = bare(a="2", b="2", c="1")
    while (response := talk.take(fixed)) is not None:
        talk.ack(response)
    assert talk.subscription.in_sync(fixed)


def test_a_removal_refused_beside_a_bad_resource_comes_again_alone() -> None:
    talk = Talk()
    talk.ask()
    talk.holds(bare(a="1", b="1"))
    now = bare(a="2")
    talk.nack(talk.expect(now))
    again = talk.expect(now)
    assert (versions(again), again.removed) == ({}, ("b",))
    talk.ack(again)
    assert talk.take(now) is None


def test_a_rejected_removal_is_not_repeated() -> None:
    talk = Talk()
    talk.ask()
    talk.holds(bare(a="1"))
    talk.nack(talk.expect({}))
    assert talk.take({}) is None


def test_removals_wait_until_they_are_allowed() -> None:
    talk = Talk()
    talk.ask()
    talk.holds(bare(a="1", b="1"))
    now = bare(b="2")
    response = talk.expect(now, removals=False)
    assert (versions(response), response.removed) == ({"b": "2"}, ())
    talk.ack(response)
    assert not talk.subscription.in_sync(now)
    assert talk.expect(now).removed == ("a",)


def test_a_removal_put_off_and_taken_back_leaves_the_client_as_it_should_be() -> None:
    talk = Talk()
    talk.ask()
    before = bare(a="1", b="1")
    talk.holds(before)
    talk.ack(talk.expect(bare(b="2"), removals=False))
    assert versions(talk.take(before)) == {"b": "1"}


def test_a_renewed_resource_is_sent_again_though_it_has_not_changed() -> None:
    talk = Talk(ENDPOINTS)
    talk.ask("a")
    resources = bare(a="1", other="1")
    talk.holds(resources)
    talk.subscription.renew(["a", "other"])
    assert versions(talk.take(resources)) == {"a": "1"}


def test_a_renewal_reaches_a_client_that_asks_after_it() -> None:
    talk = Talk(ENDPOINTS)
    talk.subscription.renew(["a"])
    assert talk.take(bare(a="1")) is None
    talk.ask("a", a="1")
    assert versions(talk.take(bare(a="1"))) == {"a": "1"}


def test_the_client_is_in_sync_when_it_has_accepted_all() -> None:
    talk = Talk()
    resources = bare(a="1")
    talk.ask()
    response = talk.expect(resources)
    assert not talk.subscription.in_sync(resources)
    talk.ack(response)
    assert talk.subscription.in_sync(resources)
    assert not talk.subscription.in_sync(bare(a="2"))


def test_too_many_names_are_refused() -> None:
    talk = Talk(ENDPOINTS)
    talk.ask(*map(str, range(MAX_NAMES)))
    with pytest.raises(InvalidRequest, match=f"more than {MAX_NAMES} names"):
        talk.ask("one-more")


def test_too_many_names_are_refused_even_if_they_are_dropped_each_time() -> None:
    talk = Talk(ENDPOINTS)
    talk.ask("*")
    some = tuple(map(str, range(MAX_NAMES)))
    talk.ask(*some)
    talk.ask(unsubscribe=some)
    with pytest.raises(InvalidRequest):
        talk.ask("one-more")


def test_a_name_that_is_too_long_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="longer than"):
        Talk(ENDPOINTS).ask("x" * (MAX_NAME_LENGTH + 1))
