"""The crew at work in an in-memory mesh: real agents with real tools, calls that fail over, a kill."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from weft.demo import fault
from weft.demo.agents import make_agent
from weft.demo.crew import ABOUT, CALL_TIMEOUT, INSTANCES, REVIEW, ROLES, manifest
from weft.demo.fan_out import Answer, Failure, FanOut
from weft.demo.fault import kill_instance
from weft.demo.findings import MAX_FINDINGS, About, Finding, Review, Severity, bounded, printable
from weft.demo.tree import SourceTree
from weft.errors import AgentFailed, NoSuchAgent, Unavailable
from weft.model.agent import Instance
from weft.model.manifest import parse_manifest
from weft.sdk.agent import Agent
from weft.testing import InMemoryMesh

FILES = 6


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for number in range(FILES):
        (tmp_path / f"file{number}.py").write_text(f"import os\n\n\ndef unused{number}():\n    return 1\n")
    return tmp_path.resolve()


@pytest.fixture
async def mesh() -> AsyncIterator[InMemoryMesh]:
    async with InMemoryMesh() as mesh:
        yield mesh


def test_the_manifest_declares_every_kind_of_agent_twice_and_one_time_limit(root: Path) -> None:
    resources = parse_manifest(manifest(root), "crew")

    agents = {each.metadata.name: each.spec for each in resources if each.kind == "Agent"}
    assert set(agents) == set(ROLES)
    for kind, spec in agents.items():
        assert set(spec.capabilities) == {REVIEW, kind}
        assert spec.run is not None
        assert spec.run.replicas == INSTANCES
        assert spec.run.command[-2:] == (kind, str(root))
    [policy] = [each.spec for each in resources if each.kind == "TrafficPolicy"]
    assert policy.timeout == CALL_TIMEOUT


@pytest.mark.parametrize("kind", ROLES)
async def test_every_kind_of_agent_reviews_a_file_and_signs_its_answer(
    mesh: InMemoryMesh, root: Path, kind: str
) -> None:
    mesh.add(make_agent(kind, SourceTree(root), f"{kind}-1"))

    review = await mesh.client.request(f"{REVIEW}.cap", REVIEW, file="file0.py", result_type=Review)

    rules = {each.rule for each in review.findings}
    expected = {"lint": {"F401"}, "security": set(), "complexity": set()}
    assert rules == expected.get(kind, {"unused-function", "unused-import"})
    assert review.instance == f"{kind}-1"
    assert not review.not_checked


async def test_an_agent_says_which_process_it_is(mesh: InMemoryMesh, root: Path) -> None:
    mesh.add(make_agent("lint", SourceTree(root), "lint-7"))

    about = await mesh.client.request("lint", ABOUT, result_type=About)

    assert about.instance == "lint-7"
    assert about.pid > 1


@pytest.mark.parametrize("file", ["../secret.py", "/etc/passwd", "readme.txt"])
async def test_an_agent_opens_no_file_outside_its_tree(mesh: InMemoryMesh, root: Path, file: str) -> None:
    mesh.add(make_agent("lint", SourceTree(root), "lint-1"))

    with pytest.raises(AgentFailed) as caught:
        await mesh.client.request("lint", REVIEW, file=file)

    assert caught.value.agent_status == 403
    assert caught.value.body["code"] == "outside-tree"


async def test_a_file_that_cannot_be_checked_is_an_answer_too(mesh: InMemoryMesh, root: Path) -> None:
    mesh.add(make_agent("security", SourceTree(root), "security-1"))
    (root / "broken.py").write_text("def broken(:\n")

    review = await mesh.client.request("security", REVIEW, file="broken.py", result_type=Review)

    assert "syntax error" in review.not_checked


async def test_a_review_is_complete_though_an_instance_dies_half_way(mesh: InMemoryMesh, root: Path) -> None:
    tree = SourceTree(root)
    for kind in ("lint", "dead-code"):
        mesh.add(make_agent(kind, tree, kind), instances=2)
    heard: list[Answer | Failure] = []
    fan_out = FanOut(mesh.client, tree.listing().files, ["lint", "dead-code"], heard.append)

    async def kill_half_way() -> None:
        await fan_out.half_way.wait()
        mesh.kill("lint-1.lint")

    await asyncio.gather(fan_out.run(), kill_half_way())

    answered = {(each.file, each.kind) for each in fan_out.answers}
    assert answered == {(f"file{n}.py", kind) for n in range(FILES) for kind in ("lint", "dead-code")}
    assert len(fan_out.answers) == fan_out.expected == 2 * FILES
    assert fan_out.failures == []
    assert heard == fan_out.answers


async def test_a_call_that_nobody_answers_is_a_failure_with_its_reason(
    mesh: InMemoryMesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    fan_out = FanOut(mesh.client, ["app.py"], ["lint"], lambda _: None)

    await fan_out.run()

    [failure] = fan_out.failures
    assert (failure.file, failure.kind, failure.repeats) == ("app.py", "lint", 4)
    with pytest.raises(NoSuchAgent) as caught:
        await mesh.client.request("lint", REVIEW, file="app.py")
    assert failure.reason == caught.value.detail
    assert fan_out.half_way.is_set()


async def test_an_agent_s_own_error_is_not_asked_for_again(mesh: InMemoryMesh, root: Path) -> None:
    mesh.add(make_agent("lint", SourceTree(root), "lint-1"))
    fan_out = FanOut(mesh.client, ["../outside.py"], ["lint"], lambda _: None)

    await fan_out.run()

    [failure] = fan_out.failures
    assert failure.repeats == 0
    assert "is no Python file of the tree" in failure.reason


@pytest.fixture
async def victim_process() -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "import signal; signal.pause()", stdin=asyncio.subprocess.DEVNULL
    )
    yield process
    if process.returncode is None:
        process.kill()
    await process.wait()


def stand_in(pid: int) -> Agent:
    """An agent whose program is another process."""
    agent = Agent("lint")

    @agent.handles(ABOUT)
    async def about() -> About:
        return About(instance="lint-1", pid=pid)

    return agent


async def test_a_kill_ends_the_process_and_waits_until_discovery_has_noticed(
    mesh: InMemoryMesh, victim_process: asyncio.subprocess.Process
) -> None:
    [victim] = mesh.add(stand_in(victim_process.pid))
    announced: list[int] = []

    async def sidecar() -> None:
        await victim_process.wait()
        mesh.kill(victim)

    killed, _ = await asyncio.gather(kill_instance(mesh.client, victim, announced.append), sidecar())

    assert victim_process.returncode == -signal.SIGKILL
    assert announced == [killed.pid] == [victim_process.pid]
    assert killed.noticed_after is not None


async def test_a_kill_that_nobody_notices_is_told_as_such(
    mesh: InMemoryMesh, victim_process: asyncio.subprocess.Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fault, "NOTICE_TIMEOUT", 0.2)
    [victim] = mesh.add(stand_in(victim_process.pid))

    killed = await kill_instance(mesh.client, victim, lambda _: None)

    assert killed.noticed_after is None


async def test_who_is_not_in_discovery_is_not_killed(
    mesh: InMemoryMesh, victim_process: asyncio.subprocess.Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fault, "_WATCH_TIMEOUT", 0.2)
    mesh.add(stand_in(victim_process.pid))

    class Elsewhere(Instance):
        """It answers, but its key is another's."""

        @property
        def key(self) -> str:
            return "lint.lint-9"

    with pytest.raises(Unavailable, match="discovery does not know"):
        await kill_instance(mesh.client, Elsewhere("lint-1", "lint", ""), lambda _: None)

    assert victim_process.returncode is None


def test_findings_are_bounded_and_the_worst_are_kept() -> None:
    many = [Finding(line=n, severity=Severity.LOW, rule="E1", message="x") for n in range(MAX_FINDINGS)]
    worst = Finding(line=9, severity=Severity.HIGH, rule="F821", message="undefined")

    review = bounded([*many, worst])

    assert len(review.findings) == MAX_FINDINGS
    assert review.findings[0] == worst
    assert review.omitted == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("two\nlines\tand\x1b[31m colour\x00", "two lines and [31m colour"),
        ("x" * 600, "x" * 499 + "…"),
        ("caf\udce9", "caf"),
    ],
)
def test_what_a_tool_says_cannot_harm_a_terminal(text: str, expected: str) -> None:
    assert printable(text) == expected


def test_severities_are_ordered() -> None:
    assert Severity.LOW.rank < Severity.MEDIUM.rank < Severity.HIGH.rank


def test_the_manifest_is_one_document_per_resource(root: Path) -> None:
    documents = [json.loads(text) for text in manifest(root).split("\n---\n")]

    assert len(documents) == len(ROLES) + 1
