"""Queues, tasks, topics and gateways through the commands a user has."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, Request, build_opener

import psutil
import pytest
from tests.e2e.weft_cli import TIMEOUT, Weft, agent_manifest, interrupt, wait_for_line, weft_user

from weft.aio.ports import reserve_port

HERE = Path(__file__).parent
HTTP = build_opener(ProxyHandler({}))


@pytest.fixture(scope="module")
def weft() -> Iterator[Weft]:
    """A user whose mesh runs a worker with the SDK, and has queues, a topic and a gateway."""
    with weft_user() as user:
        resources = [
            *((("Queue", each), {}) for each in ("count", "fragile", "endless", "plain")),
            (("Topic", "orders"), {}),
            (("Gateway", "public"), {"replicas": 0, "port": 18080}),
        ]
        documents = [_document(kind, name, spec) for (kind, name), spec in resources]
        user.write("mesh.yaml", "---\n".join([*documents, agent_manifest("clerk", HERE / "clerk.py")]))
        user.up()
        yield user
        user.ok("down")


def _document(kind: str, name: str, spec: dict[str, Any]) -> str:
    resource = {"apiVersion": "weft.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}
    return json.dumps(resource) + "\n"


def _submitted(weft: Weft, *arguments: str) -> str:
    return weft.ok("task", "submit", *arguments).strip()


@contextmanager
def _started(weft: Weft, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A command that runs on beside others; whatever happens, it has ended afterwards."""
    process = weft.start(*arguments)
    try:
        yield process
    finally:
        if process.poll() is None:
            interrupt(process)
        process.communicate()


def _end(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Wait for the end of a process: its exit code, and what it said since."""
    said, _ = process.communicate(timeout=TIMEOUT)
    return process.returncode, said


def test_a_task_is_waited_for_and_can_be_looked_up(weft: Weft) -> None:
    done = weft.run(
        "task", "submit", "count", "text=one two", "--priority", "high", "--label", "a=b", "--wait"
    )
    assert (done.returncode, done.stdout) == (0, "2\n")
    task_id, *told = done.stderr.splitlines()
    assert "partial    one" in told
    assert "progress   100% read two" in told
    task = weft.json("task", "get", task_id)
    assert (task["state"], task["result"], task["labels"]) == ("succeeded", 2, {"a": "b"})
    assert [each["id"] for each in weft.json("task", "ls", "count", "--state", "succeeded")] == [task_id]
    assert "clerk.clerk-1" in weft.ok("task", "ls", "count")
    later = ["count", "--key", "k", "--delay", "1h"]
    assert _submitted(weft, *later, "text=x") == _submitted(weft, *later, '{"text": "x"}')


def test_what_failed_is_found_among_the_dead_and_put_back(weft: Weft) -> None:
    mended = weft.directory / "mended"
    failed = weft.run("task", "submit", "fragile", f"mended={mended}", "--wait")
    assert (failed.returncode, failed.stdout) == (1, "")
    assert "nobody mended it" in failed.stderr
    task_id = failed.stderr.splitlines()[0]
    assert task_id in weft.ok("queue", "peek", "fragile", "--dead")
    refused = weft.run("queue", "purge", "fragile", "--dead")
    assert refused.returncode == 2
    assert "1 dead letters of queue fragile would be gone for good: give --yes" in refused.stderr
    mended.touch()
    assert weft.ok("queue", "redrive", "fragile", task_id) == "queue/fragile: 1 task put back\n"
    assert weft.ok("task", "watch", task_id).endswith("succeeded\nmended\n")
    assert weft.ok("queue", "purge", "fragile", "--dead", "--yes") == "queue/fragile: 0 tasks thrown away\n"


def test_whoever_watches_a_task_is_told_when_it_is_cancelled(weft: Weft) -> None:
    task_id = _submitted(weft, "endless", f"gate={weft.directory / 'never'}")
    with _started(weft, "task", "watch", task_id) as watcher:
        wait_for_line(watcher, "running")
        assert weft.ok("task", "cancel", task_id) == f"task/{task_id} cancelled\n"
        code, said = _end(watcher)
    assert (code, said.strip()) == (9, "cancelled")


def test_who_follows_goes_on_when_the_control_plane_was_killed(weft: Weft) -> None:
    gate = weft.directory / "gate"
    task_id = _submitted(weft, "endless", f"gate={gate}")
    weft.ok("topic", "pub", "orders.followed", "number:=1")
    reading = ["orders.followed", "--from-seq", "1", "--limit", "2"]
    with (
        _started(weft, "task", "watch", task_id, "-o", "json") as watcher,
        _started(weft, "topic", "sub", *reading, "-o", "json") as reader,
    ):
        wait_for_line(watcher, '"state": "running"')
        assert json.loads(wait_for_line(reader, "orders")[-1])["event"]["data"] == {"number": 1}
        (control,) = [each for each in weft.json("status")["children"] if each["name"] == "control"]
        psutil.Process(control["pid"]).kill()
        for each in (watcher, reader):
            wait_for_line(each, "trying again")
        gate.touch()
        code, said = _end(watcher)
        assert (code, [json.loads(line)["state"] for line in said.splitlines()]) == (0, ["succeeded"])
        weft.ok("topic", "pub", "orders.followed", "number:=2")
        code, said = _end(reader)
        assert (code, [json.loads(line)["event"]["data"] for line in said.splitlines()]) == (
            0,
            [{"number": 2}],
        )


def test_events_are_published_read_along_and_replayed(weft: Weft) -> None:
    weft.write("order.json", '{"amount": 30}')
    about = ["--type", "order", "--subject", "o-7", "--key", "k"]
    weft.ok("topic", "pub", "orders.paid", "-f", "order.json", *about)
    shown = weft.ok("topic", "sub", "*.paid", "--since", "1h", "--limit", "1")
    assert "orders.paid" in shown
    assert 'order o-7 k {"amount": 30}' in shown
    weft.ok("topic", "replay", "orders", "--group", "clerk", "--since", "1h")
    assert [each["name"] for each in weft.json("topic", "describe", "orders")["status"]["groups"]] == [
        "clerk"
    ]
    assert "orders" in weft.ok("topic", "ls")
    missing = weft.run("topic", "replay", "orders", "--group", "nobody", "--from-seq", "1")
    assert missing.returncode == 4


def test_queues_are_watched_until_ctrl_c(weft: Weft) -> None:
    with _started(weft, "queue", "ls", "--watch") as watcher:
        for _ in range(2):
            wait_for_line(watcher, "fragile")
        assert interrupt(watcher)[0] == 130
    described = weft.ok("queue", "describe", "count")
    assert "kind: Queue" in described
    assert "Workers wanted" in described
    assert "8 at once per worker, 5 attempts" in weft.ok("get", "queues")


def test_a_program_without_the_sdk_is_given_tasks_and_events(weft: Weft) -> None:
    duties = ["--consume", "plain=2", "--subscribe", "orders.plain", "--event-format", "mesh"]
    program = [sys.executable, str(HERE / "plain_worker.py")]
    running = ["run", "--type", "plain", *duties, "--health-interval", "1", "--", *program]
    with _started(weft, *running) as worker:
        assert weft.ok("task", "submit", "plain", "text=loud", "--wait") == '{\n  "TEXT": "LOUD"\n}\n'
        weft.ok("topic", "pub", "orders.plain", "number:=3")
        wait_for_line(worker, "event orders.plain")


def test_a_gateway_is_run_by_hand_for_those_with_a_key(weft: Weft) -> None:
    with reserve_port("127.0.0.1") as reserved:
        port = reserved.port
    with _started(weft, "gateway", "run", "public", "--port", str(port)) as gateway:
        limits = ["--queue", "count", "--rate", "50/s"]
        key = weft.ok("gateway", "create-key", "public", "shop", *limits).strip()
        assert "shop  50/s  count" in weft.ok("gateway", "keys", "public")
        assert "Listens at http://127.0.0.1:18080" in weft.ok("describe", "gateway", "public")
        wait_for_line(gateway, "is healthy")
        assert _submitted_outside(port, key)["result"] == 3
    assert weft.ok("gateway", "delete-key", "public", "shop") == "key/shop of gateway/public deleted\n"
    assert weft.run("gateway", "delete-key", "public", "shop").returncode == 4


def _submitted_outside(port: int, key: str) -> Any:
    task = {"queue": "count", "payload": {"text": "a b c"}}
    request = Request(f"http://127.0.0.1:{port}/v1/tasks", json.dumps(task).encode())
    for name, value in (("x-api-key", key), ("content-type", "application/json"), ("prefer", "wait=30")):
        request.add_header(name, value)
    with HTTP.open(request, timeout=TIMEOUT) as answer:
        return json.load(answer)
