"""One session of the crew: a mesh of its own, the review in it, and its end, whatever happens."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from weft.aio.signals import stop_signals
from weft.aio.tasks import TaskOwner
from weft.demo.crew import INSTANCES, REVIEW, ROLES, manifest
from weft.demo.display import Display
from weft.demo.fan_out import FanOut
from weft.demo.fault import Kill, kill_instance
from weft.demo.home import TemporaryHome, temporary_home
from weft.demo.report import Outcome, merge
from weft.demo.summary import Writer
from weft.demo.tree import Listing, SourceTree
from weft.errors import MeshError, NoHealthyAgent, Unavailable
from weft.local.mesh import LocalMesh
from weft.local.ports import free_ports
from weft.model.agent import Instance
from weft.model.local_state import ChildState
from weft.sdk.mesh import Mesh

START_TIMEOUT = 120.0
"""Seconds the crew has to become healthy."""

_CORE = 3  # NATS, control plane and door


@dataclass(frozen=True, slots=True)
class _Order:
    """What is to be done, and who hears of it."""

    tree: SourceTree
    listing: Listing
    kill: bool
    display: Display
    writer: Writer | None


def hold_session(tree: SourceTree, *, kill: bool, display: Display, writer: Writer | None = None) -> Outcome:
    """Start a mesh, have the crew review `tree` in it, stop the mesh; with `kill`, kill an agent half-way.

    With a `writer`, its model writes a summary at the end.

    Raises InvalidRequest if there is nothing to review, MeshError if the mesh does not start, and
    KeyboardInterrupt after SIGINT, SIGTERM or SIGHUP, once everything has ended; each further signal hurries.
    """
    listing = tree.listing()
    outcome = asyncio.run(_until_signal(_Order(tree, listing, kill, display, writer)))
    if outcome is None:
        raise KeyboardInterrupt
    return outcome


async def _until_signal(order: _Order) -> Outcome | None:
    async with temporary_home() as home:
        mesh = _mesh(order, home)
        work = asyncio.create_task(_review_in(mesh, order), name="demo")
        asked = False

        def stop() -> None:
            nonlocal asked
            if asked:
                mesh.hurry()
            else:
                asked = True
                order.display.stopping("interrupted: stopping the mesh (once more to hurry)")
                work.cancel()

        with stop_signals(stop):
            await asyncio.wait([work])
    return None if work.cancelled() else work.result()


def _mesh(order: _Order, home: TemporaryHome) -> LocalMesh:
    def child(state: ChildState) -> None:
        home.child(state)
        order.display.child(state)

    writer = order.writer
    models = [writer.manifest] if writer is not None and writer.manifest else []
    hidden = writer.variables if writer is not None else frozenset()
    return LocalMesh(
        home.directory / "demo",
        ports=free_ports(),
        # The models first: so lines that errors name are those of their file.
        manifest="\n---\n".join([*models, manifest(order.tree.root)]),
        manifest_file=writer.file if writer is not None and models else "the crew's manifest",
        working_directory=home.directory,
        environ={name: value for name, value in os.environ.items() if name not in hidden},
        default_models=writer is not None and not models,
        on_child=child,
    )


async def _review_in(local: LocalMesh, order: _Order) -> Outcome:
    display = order.display
    display.starting(_CORE + INSTANCES * len(ROLES))
    try:
        async with local:
            try:
                await local.wait_healthy(START_TIMEOUT)
                async with Mesh(proxy=local.proxy_url) as mesh:
                    return await _summarized(mesh, await _review(mesh, order), order)
            finally:
                display.stopping("stopping the mesh")
    except Unavailable as error:
        # Not "the mesh cannot be reached": it could not be started.
        raise MeshError(error.detail) from error


async def _review(mesh: Mesh, order: _Order) -> Outcome:
    tree, listing, display = order.tree, order.listing, order.display
    tools = _tools(await mesh.discover(capability=REVIEW))
    fan_out = FanOut(mesh, listing.files, list(tools), display.answered)
    display.reviewing(dict.fromkeys(tools, len(listing.files)))
    started_at, started = datetime.now(UTC), time.monotonic()
    async with TaskOwner("demo") as tasks:
        killing = tasks.start(_kill_half_way(mesh, fan_out, display), name="kill") if order.kill else None
        await fan_out.run()
        seconds = time.monotonic() - started
        killed = await killing if killing else None
    return Outcome(
        weft_version=version("weft"),
        root=str(tree.root),
        prefix=_prefix(tree.root),
        started_at=started_at,
        seconds=seconds,
        tools=tools,
        files=listing.files,
        passed_over=listing.passed_over,
        answers=fan_out.answers,
        failures=fan_out.failures,
        kill=killed,
    )


async def _summarized(mesh: Mesh, outcome: Outcome, order: _Order) -> Outcome:
    if order.writer is None:
        return outcome
    order.display.say(
        f"asking {order.writer.model} for a summary; it is told the findings, but not the code "
        "(--no-summary: it is not asked)"
    )
    written = await order.writer.write(mesh, merge(outcome))
    if written.summary is None:
        order.display.say(f"there is no summary: {written.problem}")
    return replace(outcome, summary=written.summary)


def _tools(crew: Sequence[Instance]) -> dict[str, str]:
    """What each kind of agent in `crew` works with. Raises NoHealthyAgent if a kind is missing."""
    versions = {instance.type: instance.version for instance in crew}
    missing = [kind for kind in ROLES if kind not in versions]
    if missing:
        raise NoHealthyAgent(f"discovery finds no agent for {', '.join(missing)} with capability {REVIEW!r}")
    return {kind: f"{role.tool} {versions[kind]}" for kind, role in ROLES.items()}


def _prefix(root: Path) -> str:
    """The way to `root` from the working directory; empty if it is not below it."""
    here = Path.cwd().resolve()
    return root.relative_to(here).as_posix() if root.is_relative_to(here) else ""


async def _kill_half_way(mesh: Mesh, fan_out: FanOut, display: Display) -> Kill | None:
    await fan_out.half_way.wait()
    kind = fan_out.busiest_kind
    try:
        candidates = await mesh.discover(kind)
        if not candidates:
            raise NoHealthyAgent(f"discovery finds no {kind!r}")
        victim = max(candidates, key=lambda each: fan_out.answered_by(each.id))
        killed = await kill_instance(mesh, victim, lambda pid: display.say(_warning(victim, pid)))
    except MeshError as error:
        display.say(f"no agent could be killed: {error.detail}")
        return None
    display.say(_effect(killed))
    return killed


def _warning(victim: Instance, pid: int) -> str:
    return f"half-way: killing {victim.id} (pid {pid}) on purpose, with SIGKILL; --no-kill leaves this out"


def _effect(kill: Kill) -> str:
    if kill.noticed_after is None:
        return f"discovery still returns {kill.instance.id}"
    return (
        f"the mesh noticed after {kill.noticed_after:.2f} s: discovery no longer returns {kill.instance.id}"
    )
