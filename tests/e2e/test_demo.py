"""`weft demo` as a user runs it: a real mesh, real tools, a kill; and nothing left of it, however it ends."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.weft_cli import TIMEOUT, Weft, interrupt, wait_for_line, weft_user

from weft.demo.crew import ROLES
from weft.demo.report import Location, Report
from weft.testing import SimulatedLLM

INTERRUPTED = 130

POOL = """
apiVersion: weft.dev/v1alpha1
kind: ModelPool
metadata: {{name: chief}}
spec:
  providers: [{{name: own, url: "{url}"}}]
"""


@pytest.fixture
def weft() -> Iterator[Weft]:
    """A user, of whom nothing may be left after the test."""
    with weft_user() as user:
        yield user


def write_tree(root: Path, files: int) -> Path:
    """A small project: each file has an unused import, one has a shell in it, one is broken."""
    root.mkdir()
    for number in range(files):
        (root / f"module{number:02}.py").write_text("import os\n\n\ndef unused():\n    return 1\n")
    (root / "module00.py").write_text(
        "import subprocess\n\n\ndef run(command):\n    subprocess.call(command, shell=True)\n"
    )
    (root / "module01.py").write_text("def broken(:\n")
    (root / "module02.py").write_bytes(b'name = "caf\xe9"\n')
    (root / "link.py").symlink_to("/etc/hosts")
    return root


def rules_in(report: Report, file: str) -> dict[str, Location]:
    return {each.rule: each for each in report.findings if each.file == file}


def test_the_report_is_complete_though_an_agent_is_killed_half_way(weft: Weft) -> None:
    write_tree(weft.directory / "project", files=14)
    with SimulatedLLM(first_token="0ms", tokens_per_second=0, record=1) as llm:
        (weft.directory / "models.yaml").write_text(POOL.format(url=llm.url))
        done = weft.run("demo", "project", "--models", "models.yaml")
        [asked] = llm.requests()

    assert done.returncode == 0, done.stdout + done.stderr
    report = Report.model_validate_json((weft.directory / "weft-review" / "review.json").read_text())
    assert report.complete
    files = {f"project/module{number:02}.py" for number in range(14)}
    assert {(each.file, each.kind) for each in report.answers} == {(f, k) for f in files for k in ROLES}
    assert all(each.instance.startswith(each.kind) and each.seconds > 0 for each in report.answers)
    assert len({each.instance for each in report.answers}) > len(ROLES), "both instances of a kind work"
    assert set(report.tools) == set(ROLES)
    assert [each.file for each in report.passed_over] == ["project/link.py"]

    assert "B602" in rules_in(report, "project/module00.py")
    assert "invalid-syntax" in rules_in(report, "project/module01.py")
    assert "not-checked" in rules_in(report, "project/module02.py")
    assert {"F401", "unused-function"} <= set(rules_in(report, "project/module05.py"))
    assert report.hot_spots[0].counts.high >= 1

    assert report.killed is not None
    assert report.killed.noticed_after_seconds is not None
    killed = report.killed.instance
    assert re.search(rf"killing {killed} \(pid {report.killed.pid}\) on purpose, with SIGKILL", done.stderr)
    assert f"discovery no longer returns {killed}" in done.stderr
    assert f"{killed} (killed)" in done.stdout
    assert "56 of 56 answers, complete" in done.stdout

    assert report.summary is not None, done.stderr
    assert report.summary.model == "chief"
    told = json.loads(asked["body"])["messages"][1]["content"]
    assert "- high, project/module00.py:5, security B602: " in told
    assert "Summary, written by chief" in done.stdout
    markdown = (weft.directory / "weft-review" / "review.md").read_text()
    assert "`project/module00.py:5` | security `B602`" in markdown
    assert killed in markdown
    assert "Written by the model `chief`" in markdown
    weft.assert_nothing_left()


def test_ctrl_c_midway_leaves_nothing_and_writes_no_report(weft: Weft) -> None:
    write_tree(weft.directory / "project", files=60)
    demo = weft.start("demo", "project", "--no-kill")
    wait_for_line(demo, "24 of 240 answers")
    assert len(weft.processes()) > len(ROLES) * 2

    code, rest = interrupt(demo)

    assert code == INTERRUPTED, rest
    assert "interrupted: stopping the mesh" in rest
    assert "Traceback" not in rest
    weft.assert_nothing_left()
    assert list((weft.directory / "weft-review").iterdir()) == []


def test_ctrl_c_while_the_mesh_starts_leaves_nothing(weft: Weft) -> None:
    write_tree(weft.directory / "project", files=3)
    demo = weft.start("demo", "project")
    wait_for_line(demo, "nats is ready")

    code, rest = interrupt(demo)

    assert code == INTERRUPTED, rest
    weft.assert_nothing_left()


def test_sigkill_while_agents_begin_leaves_nothing(weft: Weft) -> None:
    write_tree(weft.directory / "project", files=3)
    demo = weft.start("demo", "project")
    wait_for_line(demo, "-1 is ready")
    assert len(weft.processes()) > len(ROLES) * 2

    os.kill(demo.pid, signal.SIGKILL)
    demo.communicate(timeout=TIMEOUT)

    weft.assert_nothing_left()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere",), "nowhere does not exist"),
        (("project/module00.py",), "is not a directory"),
        (("empty",), "has no Python files"),
        (("project", "--output", "project/module00.py"), "no report can be written"),
        (("project", "--min-severity", "awful"), "awful"),
        (("project", "--models", "nowhere.yaml"), "nowhere.yaml"),
        (("project", "--model", "big"), "nobody serves model"),
        ((), "path"),
    ],
)
def test_what_makes_no_sense_is_said_at_once(weft: Weft, arguments: tuple[str, ...], message: str) -> None:
    write_tree(weft.directory / "project", files=3)
    (weft.directory / "empty").mkdir()

    done = weft.run("demo", *arguments)

    assert done.returncode == 2
    assert message.lower() in done.stderr.lower()
    assert "Traceback" not in done.stderr
    assert "starting" not in done.stderr
