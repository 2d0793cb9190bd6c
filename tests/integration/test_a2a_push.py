"""Push notifications: what a receiver gets, when it fails, and what is said to nobody."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tests.a2a_clients import result, said, task
from tests.a2a_stage import Stage, becomes, eventually, stage
from tests.receivers import Receiver, garbage, receiver, status

from weft import Agent
from weft.sdk.a2a import push
from weft.sdk.transport import HttpTransport


class Scenes:
    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.begun = asyncio.Event()

    def agent(self) -> Agent:
        agent = Agent("novelist")

        @agent.streams("chapters")
        async def chapters() -> AsyncGenerator[str, None]:
            yield "one"
            self.begun.set()
            await self.gate.wait()
            yield "two"

        return agent


@asynccontextmanager
async def played(scenes: Scenes, hook: Receiver) -> AsyncIterator[Stage]:
    """The agent, whose sidecar sends whatever it gets to the receiver."""
    async with stage(scenes.agent()) as running:
        pushes = running.actors[0].app.a2a.pushes  # type: ignore[union-attr]
        way = HttpTransport(f"http://127.0.0.1:{hook.port}")
        pushes._transport = lambda: way
        yield running
        await way.aclose()


def told(hook: Receiver) -> list[dict[str, Any]]:
    return [json.loads(each.body) for each in hook.received]


async def ended(hook: Receiver) -> None:
    async def over() -> bool:
        return any("TASK_STATE_COMPLETED" in str(each) for each in told(hook))

    await eventually(over)


async def test_a_receiver_gets_the_task_and_each_event_in_order() -> None:
    scenes = Scenes()
    async with receiver() as hook, played(scenes, hook) as running:
        config = {
            "url": "http://hook.example/path?a=b",
            "token": "t",
            "authentication": {"scheme": "Bearer", "credentials": "c"},
        }
        made = await task(
            running.http,
            running.url,
            said("x"),
            taskPushNotificationConfig=config,
            returnImmediately=True,
        )
        await becomes(scenes.begun)
        scenes.gate.set()
        await ended(hook)
        kinds = [next(iter(each)) for each in told(hook)]
        assert kinds[0] == "task"
        assert kinds[-2:] == ["artifactUpdate", "statusUpdate"]
        assert told(hook)[-1]["statusUpdate"]["taskId"] == made["id"]
        first = hook.received[0]
        assert first.target == "/path?a=b"
        assert first.headers["host"] == "hook.example"
        assert first.headers["authorization"] == "Bearer c"
        assert first.headers["x-a2a-notification-token"] == "t"


async def test_who_is_added_while_the_task_runs_is_told_from_then_on() -> None:
    scenes = Scenes()
    async with receiver() as hook, played(scenes, hook) as running:
        made = await task(running.http, running.url, said("x"), returnImmediately=True)
        await becomes(scenes.begun)
        config = {"taskId": made["id"], "url": "http://hook.example/"}
        await result(running.http, running.url, "CreateTaskPushNotificationConfig", config)
        scenes.gate.set()
        await ended(hook)
        assert "task" in told(hook)[0]


async def test_an_event_is_tried_again_until_the_receiver_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(push, "PAUSES", (0.01, 0.01, 0.01))
    scenes = Scenes()
    scenes.gate.set()
    async with receiver(status(500), garbage, status(200)) as hook, played(scenes, hook) as running:
        config = {"url": "http://hook.example/"}
        await task(running.http, running.url, said("x"), taskPushNotificationConfig=config)
        await ended(hook)
        first, second, third, *_ = told(hook)
        assert first == second == third


async def test_a_receiver_that_never_takes_anything_harms_nobody(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(push, "PAUSES", (0.01,))
    scenes = Scenes()
    scenes.gate.set()
    with caplog.at_level(logging.WARNING, "weft.agent"):
        async with receiver(status(500)) as hook, played(scenes, hook) as running:
            config = {"url": "http://hook.example/secret-path", "token": "secret"}
            made = await task(running.http, running.url, said("x"), taskPushNotificationConfig=config)
            assert made["status"]["state"] == "TASK_STATE_COMPLETED"

            async def given_up() -> bool:
                return "could not be delivered to hook.example" in caplog.text

            await eventually(given_up)
    assert "secret" not in caplog.text
