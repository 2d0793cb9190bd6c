"""The examples in directories are run, all in one mesh, and do what they claim."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.binaries import WEFT
from tests.e2e.weft_cli import EXAMPLES, TIMEOUT, Weft, weft_user

from weft.aio.ports import reserve_port

DIRECTORIES = ("tasks", "events", "gateway", "foreign-worker", "llm", "orchestration")

_COMMANDS = re.compile(r"^\$ (.+)$", re.MULTILINE)


def all_in_one(port: int) -> str:
    """The manifests of all these examples as one, with the gateway at `port`."""
    documents: list[dict[str, Any]] = []
    for directory in DIRECTORIES:
        for each in yaml.safe_load_all((EXAMPLES / directory / "mesh.yaml").read_text()):
            if "run" in each["spec"]:
                each["spec"]["run"]["workingDirectory"] = directory
            if each["kind"] == "Gateway":
                each["spec"]["port"] = port
            documents.append(each)
    return yaml.safe_dump_all(documents)


@pytest.fixture(scope="module")
def port() -> int:
    with reserve_port("127.0.0.1") as reserved:
        return int(reserved.port)


@pytest.fixture(scope="module")
def weft(port: int) -> Iterator[Weft]:
    """A user with a mesh in which all of it runs."""
    with weft_user() as user:
        shutil.copytree(EXAMPLES, user.directory / "examples", ignore=shutil.ignore_patterns("__pycache__"))
        (user.directory / "examples" / "all.yaml").write_text(all_in_one(port))
        user.environ["PATH"] = f"{Path(WEFT).parent}{os.pathsep}{user.environ['PATH']}"
        user.up("examples/all.yaml")
        yield user
        user.ok("down")


def script(weft: Weft, *arguments: str) -> str:
    """Run a script of the examples; its output."""
    return weft.ok("run", "--log-level", "error", "--", sys.executable, *arguments)


def awaited(weft: Weft, text: str, name: str) -> str:
    """Wait until a process of the mesh has written that; the line that says so."""
    log = next(weft.directory.rglob(f"logs/{name}.log"))
    deadline = time.monotonic() + TIMEOUT
    while True:
        found = [line for line in log.read_text().splitlines() if text in line]
        if found:
            return found[0]
        assert time.monotonic() < deadline, f"{name} never said {text!r}:\n{log.read_text()}"
        time.sleep(0.1)


def test_the_researcher_tells_how_far_it_is_and_answers_once(weft: Weft) -> None:
    told = script(weft, "examples/tasks/submit.py", "why is", "water wet").splitlines()
    assert told[-2:] == ["succeeded", "{'answer': 'because of the wet', 'attempt': 1}"]
    partial = [line for line in told if line.startswith("partial")]
    assert partial == [f"partial {{'source': '{word}'}}" for word in ("why", "is", "water")]
    again = script(weft, "examples/tasks/submit.py", "why is water wet")
    assert again.splitlines()[-1] == told[-1]
    assert len(weft.json("task", "ls", "research")) == 1


def test_a_question_that_makes_no_sense_is_a_dead_letter_at_once(weft: Weft) -> None:
    done = weft.run("task", "submit", "research", "question=", "--wait")
    assert done.returncode == 1
    assert "there is no question" in done.stdout + done.stderr


def test_an_order_is_paid_shipped_and_counted(weft: Weft) -> None:
    assert "order 7 is placed" in script(weft, "examples/events/publish.py", "7")
    shipped = weft.ok("topic", "sub", "orders.shipped", "--from-seq", "1", "--limit", "1", "-o", "json")
    assert json.loads(shipped.splitlines()[0])["event"]["data"] == {"number": 7}
    for event in ("orders.placed", "orders.paid", "orders.shipped"):
        awaited(weft, f"{event}: {{'number': 7", "shipping-1")


def test_an_order_that_costs_nothing_is_a_dead_letter(weft: Weft) -> None:
    script(weft, "examples/events/publish.py", "8", "0")
    letter = weft.ok(
        "topic", "sub", "dead-letters.orders.billing", "--from-seq", "1", "--limit", "1", "-o", "json"
    )
    assert "order 8 costs nothing" in letter


def test_a_program_without_the_library_does_tasks_at_once_and_in_the_background(weft: Weft) -> None:
    quick = weft.json("task", "submit", "thumbnails", "file=cat.png", "--wait")
    assert quick["result"] == {"thumbnail": "small-cat.png"}
    slow = weft.json("task", "submit", "thumbnails", "file=cat.png", "slowly:=true", "--wait")
    assert slow["result"] == {"thumbnail": "fine-cat.png"}
    wrong = weft.run("task", "submit", "thumbnails", "cat.png", "--wait")
    assert wrong.returncode != 0


def test_a_program_without_the_library_gets_events(weft: Weft) -> None:
    weft.ok("topic", "pub", "uploads.finished", '{"file": "dog.png"}')
    awaited(weft, "uploads.finished: dog.png of ", "painter-1")


@pytest.mark.skipif(shutil.which("curl") is None, reason="the commands of the example are those of curl")
def test_the_commands_for_the_gateway_do_what_is_said_of_them(weft: Weft, port: int) -> None:
    said = (EXAMPLES / "gateway" / "README.md").read_text()
    commands = [each.replace("8080", str(port)) for each in _COMMANDS.findall(said)]
    starting, making_key, *calls = commands
    assert starting.startswith("weft up ")
    # The gateway hears of a new key within a moment.
    listing = f"curl -sfo /dev/null 'http://127.0.0.1:{port}/v1/tasks?queue=translations'"
    heard = f'until {listing} -H "x-api-key: $KEY"; do sleep 0.1; done'
    lines = [making_key, heard, *(f"{each}; echo" for each in calls)]
    done = subprocess.run(
        ["bash", "-ec", "\n".join(lines)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
        env=weft.environ,
        cwd=weft.directory,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    waited, shown, *news, called, refused = [line for line in done.stdout.splitlines() if line]
    assert json.loads(waited)["result"] == ["GOOD", "BYE"]
    assert json.loads(shown)["id"].startswith("translations.")
    assert [line.removeprefix("data: ") for line in news if '"TWO"' in line]
    assert json.loads(called) == {"result": "HELLO"}
    assert json.loads(refused)["status"] == 401


def test_the_assistant_explains_with_a_model_that_nobody_declared(weft: Weft) -> None:
    assert "(simulated answer)" in weft.ok("call", "assistant", "explain", "topic=why the sky is blue")


def test_the_lead_makes_one_answer_of_several_and_the_script_follows_it(weft: Weft) -> None:
    """Which of the four branches was not waited for is left to chance."""
    advice = weft.json("call", "lead", "advise", "question=shall we")
    assert "(simulated answer)" in advice["advice"]
    assert len(advice["from"]) == 3
    assert advice["failed"] == {}

    told = script(weft, "examples/orchestration/ask.py", "shall we").splitlines()
    *news, letters, by, verdict = told
    assert sorted(news) == [
        "optimist: shall we? yes",
        "pessimist: shall we? no",
        "studies so far: read about 'shall'",
        "studies so far: read about 'we'",
        "studies: after 2 books: it depends",
    ]
    assert (letters, by) == ("7 letters", "by optimist: shall we? yes")
    assert verdict == "verdict: no, tied: ['no', 'yes']"


def test_every_file_of_these_examples_is_used() -> None:
    used = Path(__file__).read_text() + "".join(
        (EXAMPLES / each / "mesh.yaml").read_text() for each in DIRECTORIES
    )
    files = [each for name in DIRECTORIES for each in (EXAMPLES / name).iterdir() if each.is_file()]
    assert sorted(each.name for each in files if each.name not in used) == []


def test_every_directory_of_examples_has_a_test() -> None:
    tests = "".join(each.read_text() for each in Path(__file__).parents[1].rglob("test_*.py"))
    named = set(re.findall(r"examples/([a-z0-9-]+)|(?:EXAMPLES|\"examples\") / \"([a-z0-9-]+)\"", tests))
    directories = {each.name for each in EXAMPLES.iterdir() if each.is_dir()} - {"__pycache__"}
    assert directories - {name for names in named for name in names} - set(DIRECTORIES) == set()
