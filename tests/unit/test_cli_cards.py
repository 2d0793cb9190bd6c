"""`weft cards` and `weft card`, on what agents offer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.control_api import ServedApi, served_api

from weft.aio.poll import until
from weft.cli.exit_codes import ExitCode
from weft.cli.main import run
from weft.model.agent import Instance, Status
from weft.model.offer import Offer
from weft.registry.offers import Offers
from weft.registry.registry import Registry

WORDS: dict[str, Any] = {
    "name": "Words\x1b[31m",
    "description": "[bold]counts",
    "supportedInterfaces": [
        {"url": "http://elsewhere.example/rpc", "protocolBinding": "JSONRPC", "protocolVersion": "1.0"}
    ],
    "skills": [{"id": "count_words", "tags": ["counting"]}, {"id": "spell"}],
}
OLD: dict[str, Any] = {"name": "Old", "url": "http://localhost:1/rpc"}


@pytest.fixture
async def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ServedApi]:
    async with served_api(tmp_path) as served:
        for name, value in (await served.environ()).items():
            monkeypatch.setenv(name, value)
        registry, offers = await Registry.open(served.store), await Offers.open(served.store)
        for agent_type, offer in {
            "words": Offer(WORDS, notes=("its card says it is elsewhere\x07",)),
            "old": Offer(OLD),
            "broken": Offer(notes=("its card did not come",)),
            "plain": Offer(),
        }.items():
            instance = Instance("a-1", agent_type, "127.0.0.1:1", Status.HEALTHY, incarnation="x")
            await registry.register(replace(instance))
            await offers.publish(instance.key, offer)
        yield served


async def weft(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[str, str]:
    """What a command prints, and what it warns of."""
    code = await asyncio.to_thread(run, arguments)
    printed = capsys.readouterr()
    assert code == ExitCode.OK, printed.err
    return printed.out, printed.err


async def test_agents_are_listed_by_their_cards_and_found_by_words_skills_and_tags(
    api: ServedApi, capsys: pytest.CaptureFixture[str]
) -> None:
    async def known() -> bool:
        return "words" in (await weft(capsys, "cards"))[0]

    async with asyncio.timeout(30):
        await until(known)
    shown, warned = await weft(capsys, "cards")
    assert [each.split() for each in shown.splitlines()[1:]] == [
        ["old", "Old", "1/1", "0.3"],
        ["words", r"Words\x1b[31m", "count_words,", "spell", "1/1", "1.0", "[bold]counts"],
    ]
    assert warned.splitlines() == ["broken: its card did not come"]
    for found in (["counts"], ["--skill", "spell"], ["--tag", "Counting", "words", "count"]):
        listed = json.loads((await weft(capsys, "cards", *found, "-o", "json"))[0])
        assert [each["type"] for each in listed] == ["words"]
    nothing, said = await weft(capsys, "cards", "--tag", "nothing")
    assert nothing == ""
    assert "no agent has a card that matches" in said


async def test_a_card_is_shown_as_others_get_it(api: ServedApi, capsys: pytest.CaptureFixture[str]) -> None:
    async def known() -> bool:
        return await asyncio.to_thread(run, ["card", "words"]) == ExitCode.OK

    async with asyncio.timeout(30):
        await until(known)
    capsys.readouterr()
    shown, warned = await weft(capsys, "card", "words")
    assert json.loads(shown)["supportedInterfaces"][0]["url"] == "http://words.mesh/rpc"
    assert warned.strip() == r"its card says it is elsewhere\x07"
    for without in ("plain", "nobody"):
        assert await asyncio.to_thread(run, ["card", without]) == ExitCode.NOT_FOUND
