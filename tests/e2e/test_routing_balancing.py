"""How calls are spread over instances, as their answers tell, through real Envoys.

Bounds on shares are more than five standard deviations wide: they fail about once in two million runs.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import ExitStack
from functools import partial

import pytest
from tests.e2e.crew import WORKERS, Crew, answers, problem, tally
from tests.e2e.meshes import eventually


async def test_round_robin_gives_each_instance_the_same_share(crew: Crew) -> None:
    async with crew.client() as client:
        found = await tally(client, "http://evenly.cap.mesh/", 60)
    assert found == pytest.approx(dict.fromkeys(WORKERS, 20), abs=1)


async def test_least_connections_spares_an_instance_that_is_busy(crew: Crew) -> None:
    async with crew.client() as client:
        with crew.members["w-1"].set("slow", "0.5"):
            found = await tally(client, "http://least.cap.mesh/", 60, at_once=3)
    assert found["w-1"] < 10 < min(found["w-2"], found["w-3"])


async def test_weighted_gives_instances_shares_by_their_weights(crew: Crew) -> None:
    async with crew.client() as client:
        found = await tally(client, "http://weighted.cap.mesh/", 80)
    assert found == pytest.approx({"w-1": 10, "w-2": 20, "w-3": 50}, abs=2)


async def test_random_reaches_every_instance_about_equally(crew: Crew) -> None:
    async with crew.client() as client:
        found = await tally(client, "http://random.cap.mesh/", 300, at_once=4)
    assert found == pytest.approx(dict.fromkeys(WORKERS, 100), abs=45)  # sigma is 8.2


async def test_a_consistent_hash_keeps_a_user_at_one_instance_and_spreads_users(crew: Crew) -> None:
    homes: Counter[str] = Counter()
    async with crew.client() as client:
        for user in range(60):
            found = await tally(client, "http://hashed.cap.mesh/", 3, headers={"x-user": f"user-{user}"})
            assert len(found) == 1
            homes.update(found.keys())
    assert homes.keys() == WORKERS.keys()


async def test_a_conversation_keeps_to_one_instance_where_that_is_wanted_and_other_calls_are_spread(
    crew: Crew,
) -> None:
    chats = [f"chat-{number}" for number in range(60)]
    for url in ("http://sticky.cap.mesh/", "http://worker.mesh/", "http://worker.mesh/split"):
        homes: dict[str, str] = {}
        # Each as another client, with connections of its own, and by other routes.
        for options in ({}, {"idempotency-key": "k"}, {"accept": "text/event-stream"}):
            async with crew.client() as client:
                for chat in chats:
                    [home] = await tally(client, url, 1, headers={"x-weft-context": chat, **options})
                    assert homes.setdefault(chat, home) == home
        assert set(homes.values()) == WORKERS.keys(), url
    async with crew.client() as client:
        found = await tally(client, "http://sticky.cap.mesh/", 60)
        assert found == pytest.approx(dict.fromkeys(WORKERS, 20), abs=1)
        found = await tally(client, "http://w-2.worker.mesh/", 6, headers={"x-weft-context": "chat-1"})
        assert found.keys() == {"w-2"}


async def test_a_conversation_goes_elsewhere_while_its_instance_takes_no_calls_and_then_back(
    crew: Crew,
) -> None:
    headers = {"x-weft-context": "chat-away"}
    async with crew.client() as client:
        [home] = await tally(client, "http://sticky.cap.mesh/", 3, headers=headers)
        with crew.members[home].set("always", "refused"):
            away = await tally(client, "http://sticky.cap.mesh/", 5, headers=headers)
            assert home not in away
        assert (await tally(client, "http://sticky.cap.mesh/", 3, headers=headers)).keys() == {home}


async def test_with_slow_start_calls_reach_every_instance(crew: Crew) -> None:
    async with crew.client() as client:
        await answers(client, "http://gently.cap.mesh/", *WORKERS)


async def test_an_instance_that_was_busy_is_not_ejected(crew: Crew) -> None:
    async with crew.client() as client:
        with crew.members["w-1"].set("always", "refused"):
            assert (await tally(client, "http://evenly.cap.mesh/", 30)).keys() == {"w-2", "w-3"}
        assert (await tally(client, "http://evenly.cap.mesh/", 30)).keys() == WORKERS.keys()


async def test_an_instance_that_always_fails_is_ejected(crew: Crew) -> None:
    async with crew.client() as client:
        with crew.members["w-3"].set("always", "500"):
            streak = 0

            async def spared() -> bool:
                nonlocal streak
                response = await client.get("http://strict.cap.mesh/")
                streak = streak + 1 if response.status_code == 200 else 0
                return streak == 20

            await eventually(spared, lambda: "it still gets calls", pause=0.02)
        # It is well again, but its time is not over.
        assert (await tally(client, "http://strict.cap.mesh/", 10)).keys() == {"w-1", "w-2"}
        assert (await tally(client, "http://evenly.cap.mesh/", 9)).keys() == WORKERS.keys()


async def test_calls_beyond_the_circuit_breakers_limit_are_refused(crew: Crew) -> None:
    async with crew.client() as client:
        holding = asyncio.create_task(client.get("http://narrow.cap.mesh/held"))
        await eventually(partial(_is_held, crew), lambda: "the call never arrived")
        refused = await client.get("http://narrow.cap.mesh/")
        with ExitStack() as released:
            for each in crew.members.values():
                released.enter_context(each.set("release"))
            assert (await holding).status_code == 200
        assert problem(refused) == (503, "refused")
        assert "circuitBreaker" in refused.json()["detail"]
        assert (await client.get("http://narrow.cap.mesh/")).status_code == 200


async def _is_held(crew: Crew) -> bool:
    return any("GET /held" in each.seen() for each in crew.members.values())
