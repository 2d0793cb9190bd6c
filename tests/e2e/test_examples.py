"""Every example is run and does what is claimed: the commands of the README first, then each by itself."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.binaries import WEFT
from tests.e2e.weft_cli import EXAMPLES, PAUSE, START_TIMEOUT, TIMEOUT, Weft, weft_user

from weft import AgentFailed, Mesh

README = EXAMPLES.parent / "README.md"

CALLS = 400
"""Of which a canary's share is counted: so many that chance hardly ever makes it miss the bounds below."""

_TRANSCRIPT = re.compile(r"^```console\n(.*?)^```", re.DOTALL | re.MULTILINE)

_VARYING = (
    (re.compile(r"\b[0-9a-f]{16}…"), "FINGERPRINT"),
    (re.compile(r"\bin \d+[smhd]\b"), "in TIME"),
    (re.compile(r"\b\d{4}-\d{2}-\d{2}\b"), "DATE"),
    (re.compile(r"\b127\.0\.0\.1:\d+"), "ADDRESS"),
    (re.compile(r"\bpid \d+, started \d+[smh] ago"), "pid PID, started AGE ago"),
    (re.compile(r"(?<=ready )\d+(?= \d)"), "PID"),
    (re.compile(r"\b\d+[smh]$"), "AGE"),
)
"""What differs from run to run; applied to lines whose spaces have been made single."""

_WATCHING = ("agents", "discover", "llm", "status")
"""Commands that may be given again until what they show has come true."""

_CHANGING = ("apply", "delete")
"""Commands after which sidecars take a moment: the one that follows may be given again too."""


@dataclass(frozen=True)
class Step:
    """One command of a transcript, and what it says, line by line."""

    command: str
    output: list[str]


def steps(transcript: str) -> list[Step]:
    """The commands of a transcript, which begin with `$ `."""
    parts = re.split(r"^\$ ", transcript, flags=re.MULTILINE)[1:]
    return [Step(lines[0], lines[1:]) for part in parts if (lines := part.splitlines())]


def plain(line: str) -> str:
    """`line` without what differs from run to run."""
    line = " ".join(line.split())
    for pattern, name in _VARYING:
        line = pattern.sub(name, line)
    return line


def says(output: list[str], expected: list[str]) -> bool:
    """Whether `output` is `expected`, in which `...` stands for any lines."""
    pattern = "".join("(.*\n)*" if each == "..." else re.escape(plain(each)) + "\n" for each in expected)
    return re.fullmatch(pattern, "".join(plain(each) + "\n" for each in output)) is not None


class Reader:
    """Somebody who follows the README, in a directory in which the examples are."""

    def __init__(self, weft: Weft, text: str) -> None:
        (weft.directory / "examples").symlink_to(EXAMPLES)
        self._weft = weft
        self._text = text
        path = f"{Path(WEFT).parent}{os.pathsep}{weft.environ['PATH']}"
        self._environ = {**weft.environ, "PATH": path}
        self._background: list[subprocess.Popen[bytes]] = []
        self._changed = False

    def follow(self, step: Step) -> None:
        """Give the command and see that it says what the README claims."""
        command = self._for_this_machine(step.command)
        if command.endswith(" &"):
            self._start(command.removesuffix(" &"))
            return
        program, name, *_ = shlex.split(command)
        again = self._changed or (program == "weft" and name in _WATCHING)
        self._changed = program == "weft" and name in _CHANGING
        deadline = time.monotonic() + TIMEOUT
        output = self._run(command)
        while again and not says(output, step.output) and time.monotonic() < deadline:
            time.sleep(PAUSE)
            output = self._run(command)
        assert says(output, step.output), f"$ {command}\n" + "\n".join(output)

    def end(self) -> None:
        """Stop what was left in the background."""
        for each in self._background:
            each.send_signal(signal.SIGTERM)
        for each in self._background:
            each.wait(TIMEOUT)

    def _run(self, command: str) -> list[str]:
        done = subprocess.run(
            ["bash", "-c", command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=TIMEOUT,
            check=False,
            env=self._environ,
            cwd=self._weft.directory,
        )
        return done.stdout.splitlines()

    def _start(self, command: str) -> None:
        process = subprocess.Popen(
            ["bash", "-c", f"exec {command}"],
            stdin=subprocess.DEVNULL,
            env=self._environ,
            cwd=self._weft.directory,
        )
        self._background.append(process)

    def _for_this_machine(self, command: str) -> str:
        """The command with free ports in place of the usual ones, and with the PIDs of this run."""
        if command.startswith("weft up "):
            return f"{command} --port-base 0 --timeout {START_TIMEOUT}"
        if command.startswith("kill "):
            return re.sub(r"\d{2,}$", lambda match: str(self._pid_now(match[0])), command)
        if ":7403" in command:
            return command.replace("7403", str(self._weft.json("status")["ports"]["proxy"]))
        return command

    def _pid_now(self, shown: str) -> int:
        """The PID of the process for which the README shows another."""
        named = re.search(rf"^(\S+) +ready +{shown} ", self._text, re.MULTILINE)
        assert named, f"the README kills {shown}, but does not show what that is"
        (pid,) = [each["pid"] for each in self._weft.json("status")["children"] if each["name"] == named[1]]
        return int(pid)


@pytest.mark.timeout(400)
def test_the_commands_of_the_readme_say_what_it_shows() -> None:
    text = README.read_text()
    found = [step for match in _TRANSCRIPT.finditer(text) for step in steps(match[1])]
    assert len(found) > 15
    with weft_user() as weft:
        reader = Reader(weft, text)
        try:
            for step in found:
                if not step.command.startswith("curl ") or shutil.which("curl"):
                    reader.follow(step)
        finally:
            reader.end()


@pytest.mark.parametrize(
    ("output", "expected", "fits"),
    [
        (["agent-1  healthy  127.0.0.1:5  3s"], ["agent-1 healthy 127.0.0.1:77 12s "], True),
        (["agent-1  healthy"], ["agent-1  starting"], False),
        (["one", "two", "three"], ["...", "three"], True),
        (["one", "two"], ["one"], False),
        ([], ["one"], False),
    ],
)
def test_output_is_compared_but_for_what_differs_from_run_to_run(
    output: list[str], expected: list[str], fits: bool
) -> None:
    assert says(output, expected) is fits


@pytest.fixture(scope="module")
def weft() -> Iterator[Weft]:
    """A user with the mesh of examples/mesh.yaml, whose programs are run by this Python."""
    with weft_user() as user:
        shutil.copytree(EXAMPLES, user.directory / "examples", ignore=shutil.ignore_patterns("__pycache__"))
        user.environ["PATH"] = f"{Path(WEFT).parent}{os.pathsep}{user.environ['PATH']}"
        user.up("examples/mesh.yaml")
        yield user
        user.ok("down")


def test_the_mesh_of_the_examples_has_two_summarizers_a_chatter_and_a_counter(weft: Weft) -> None:
    running = {each["id"] for each in weft.json("agents", "--status", "healthy")}
    assert running == {"summarizer-1", "summarizer-2", "chatter-1", "counter-1"}
    (policy,) = weft.json("get", "trafficpolicies")
    assert policy["spec"]["loadBalancing"]["policy"] == "leastConnections"


def test_the_hello_agent_summarizes_one_text_or_many(weft: Weft) -> None:
    assert weft.ok("call", "summarizer", "summarize", "text=a b c", "length:=2") == "a b ...\n"
    many = weft.json("call", "summarizer", "summarize-all", 'texts:=["a b c d e f", "g"]')
    assert many == ["a b c d e ...", "g"]
    empty = weft.run("call", "summarizer", "summarize", "text=", "--output", "json")
    assert (empty.returncode, json.loads(empty.stderr)["detail"]) == (1, "there is nothing to summarize")


def test_the_hello_agents_own_error_reaches_the_caller_with_its_status_and_code(weft: Weft) -> None:
    async def ask() -> AgentFailed:
        async with Mesh(proxy=weft.json("status")["urls"]["proxy"]) as mesh:
            with pytest.raises(AgentFailed) as caught:
                await mesh.request("summarizer", "summarize", text="")
            return caught.value

    error = asyncio.run(ask())
    assert (error.agent_status, error.body["code"]) == (422, "empty-text")


def test_the_stream_agent_says_word_by_word(weft: Weft) -> None:
    assert weft.ok("call", "chatter", "chat", "prompt=to be or", "--stream") == "to\nbe\nor\n"


def test_the_foreign_agent_counts_and_refuses_what_it_does_not_understand(weft: Weft) -> None:
    assert weft.json("call", "cap:count", "count", "text=a b c") == 3
    assert weft.run("call", "counter", "count", "txt=a").returncode == 1
    assert json.loads(weft.ok("call", "counter", "--path", "/health")) == {"status": "healthy"}


def test_the_caller_prints_who_is_there_a_summary_and_a_chat(weft: Weft) -> None:
    done = weft.run("run", "--", sys.executable, "examples/caller.py", "one two three four five six")
    assert done.returncode == 0, done.stderr
    lines = [line.strip() for line in done.stdout.splitlines()]
    assert lines[:2] == ["chatter chatter-1 healthy chat", "counter counter-1 healthy count"]
    assert lines[-2:] == ["one two three four five ...", "one two three four five six"]


def test_a_canary_gets_its_tenth_and_those_who_ask_for_it(weft: Weft) -> None:
    arguments = ("--type", "summarizer", "--id", "next", "--capability", "summarize", "--version", "2")
    canary = weft.start("run", *arguments, "--", sys.executable, "examples/hello_agent_v2.py")
    try:
        deadline = time.monotonic() + TIMEOUT
        while not weft.json("discover", "summarizer", "--version", "2"):
            assert canary.poll() is None, "the second version ended"
            assert time.monotonic() < deadline, "the second version was never found"
            time.sleep(PAUSE)
        weft.ok("apply", "-f", "examples/canary.yaml")
        asked, shared = asyncio.run(_count_canary(weft.json("status")["urls"]["proxy"]))
        assert asked == 10
        assert CALLS * 0.03 < shared < CALLS * 0.2
        weft.ok("delete", "-f", "examples/canary.yaml")
    finally:
        canary.send_signal(signal.SIGTERM)
        canary.communicate(timeout=TIMEOUT)


async def _count_canary(proxy: str) -> tuple[int, int]:
    """How many of 10 calls that ask for it, and of CALLS that don't, version 2 answers."""

    async def is_new(mesh: Mesh, headers: dict[str, str]) -> bool:
        told = await mesh.request("summarizer", "summarize", text="a b c", length=1, headers=headers)
        return bool(told == "a ... c")

    async with Mesh(proxy=proxy) as mesh:
        async with asyncio.timeout(TIMEOUT):
            # The Route is in force once a call that asks for version 2 gets it.
            while not await is_new(mesh, {"x-try": "next"}):
                pass
        asked = [await is_new(mesh, {"x-try": "next"}) for _ in range(10)]
        shared = [await is_new(mesh, {}) for _ in range(CALLS)]
    return sum(asked), sum(shared)


def test_the_denial_is_of_counting_by_hand_and_nothing_else(weft: Weft) -> None:
    weft.ok("apply", "-f", "examples/deny.yaml")
    _await_exit_code(weft, 8, "call", "counter", "count", "text=a b")
    assert json.loads(weft.ok("call", "counter", "--path", "/health")) == {"status": "healthy"}
    assert weft.json("can", "chatter", "call", "counter")["allowed"]
    weft.ok("delete", "-f", "examples/deny.yaml")
    _await_exit_code(weft, 0, "call", "counter", "count", "text=a b")


def test_calls_are_traced_and_written_down_as_the_example_says(weft: Weft) -> None:
    weft.ok("apply", "-f", "examples/telemetry.yaml")
    told = weft.ok("get", "telemetry")
    assert "type 'summarizer', 100 % traced, access log of errors, messages recorded" in told
    assert "the whole mesh, 1 % traced" in told
    assert "redactFields" in weft.ok("describe", "telemetry", "summarizer")
    assert weft.ok("call", "summarizer", "summarize", "text=a b c", "length:=2") == "a b ...\n"
    weft.ok("delete", "-f", "examples/telemetry.yaml")


def test_editors_may_do_what_the_policies_of_the_example_say_and_others_nothing(weft: Weft) -> None:
    weft.environ["PROVIDER_API_KEY"] = "sk-of-the-example"
    said = weft.ok("apply", "-f", "examples/access.yaml")
    del weft.environ["PROVIDER_API_KEY"]
    assert "sk-of-the-example" not in said + weft.ok("get", "secrets", "-o", "yaml")
    library = ("library", "--method", "POST", "--path", "/mcp", "--rpc", "tools/call")
    for caller, asked, code in (
        ("editor", ("summarizer",), 0),
        ("editor", ("chatter",), 1),
        ("editor", ("summarizer", "--path", "/health", "--method", "GET"), 1),
        ("editor", (*library, "--tool", "search"), 0),
        ("editor", (*library, "--tool", "delete"), 1),
        ("chatter", ("summarizer",), 1),
        ("operator/local", ("chatter",), 0),
    ):
        assert weft.run("can", caller, "call", *asked).returncode == code, (caller, asked)
    _await_editor(weft, "denied: chatter, http://elsewhere.example/")
    assert weft.ok("call", "summarizer", "summarize", "text=a b c", "length:=2") == "a b ...\n"
    weft.ok("delete", "-f", "examples/access.yaml")
    _await_editor(weft, "denied: ")


EDITOR = """
import asyncio, os, urllib.request
from urllib.error import HTTPError
from weft import Denied, Mesh

async def main():
    denied = []
    async with Mesh() as mesh:
        assert await mesh.request("summarizer", "summarize", text="a") == "a"
        try:
            [each async for each in mesh.stream("chatter", "chat", prompt="a")]
        except Denied:
            denied.append("chatter")
    try:
        urllib.request.urlopen("http://elsewhere.example/", timeout=20)
    except HTTPError as error:
        denied += ["http://elsewhere.example/"] if error.status == 403 else []
    print("denied:", ", ".join(denied))

asyncio.run(main())
"""


def _await_editor(weft: Weft, line: str) -> None:
    """Run an editor until it says that: sidecars take a moment to hear of a change."""
    deadline = time.monotonic() + TIMEOUT
    while line not in (said := weft.ok("run", "--type", "editor", "--", sys.executable, "-c", EDITOR)).split(
        "\n"
    ):
        assert time.monotonic() < deadline, said
        time.sleep(PAUSE)


def _await_exit_code(weft: Weft, code: int, *arguments: str) -> None:
    """Give a command until it ends with `code`: sidecars take a moment to hear of a change."""
    deadline = time.monotonic() + TIMEOUT
    while (done := weft.run(*arguments)).returncode != code:
        assert time.monotonic() < deadline, f"{done.returncode}: {done.stderr}"
        time.sleep(PAUSE)


def test_the_example_of_tests_passes() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", EXAMPLES / "test_my_agent.py"],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
        cwd=EXAMPLES.parent,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 passed" in done.stdout


def test_every_example_is_named_here() -> None:
    # A new example needs a test of its own.
    text = Path(__file__).read_text()
    manifest = (EXAMPLES / "mesh.yaml").read_text()
    examples = {each.name for each in EXAMPLES.iterdir() if each.suffix in {".py", ".yaml"}}
    assert sorted(name for name in examples if name not in text and name not in manifest) == []
