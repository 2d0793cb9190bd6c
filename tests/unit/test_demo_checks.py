"""Every tool of the crew on small files with known defects, through the checks that wrap them."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from weft.demo import tool
from weft.demo.checks.check import Check
from weft.demo.checks.complexity import Complexity
from weft.demo.checks.dead_code import DeadCode
from weft.demo.checks.lint import Lint
from weft.demo.checks.lint import severity as lint_severity
from weft.demo.checks.security import Security
from weft.demo.checks.security import severity as security_severity
from weft.demo.crew import ROLES
from weft.demo.findings import Finding, Severity
from weft.demo.tool import check_installed, run_tool, tool_version
from weft.demo.tree import SourceTree, Unreadable
from weft.errors import MeshError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path.resolve()


def write(root: Path, name: str, text: str) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    return path


def found(findings: list[Finding]) -> set[tuple[str, int, Severity]]:
    return {(each.rule, each.line, each.severity) for each in findings}


async def test_lint_finds_an_undefined_name_an_unused_import_and_a_shared_default(root: Path) -> None:
    path = write(
        root,
        "app.py",
        """\
        import os

        def collect(into=[]):
            into.append(missing)
            return into
        """,
    )

    findings = await Lint().findings(path)

    assert found(findings) == {
        ("F401", 1, Severity.LOW),
        ("B006", 3, Severity.MEDIUM),
        ("F821", 4, Severity.HIGH),
    }
    assert "missing" in next(each.message for each in findings if each.rule == "F821")


async def test_lint_has_the_same_rules_whatever_the_tree_s_own_settings_say(root: Path) -> None:
    write(root, "ruff.toml", "this is not = = TOML")
    path = write(root, "app.py", "import os\n")

    assert found(await Lint().findings(path)) == {("F401", 1, Severity.LOW)}


async def test_lint_reports_broken_syntax_as_a_severe_finding(root: Path) -> None:
    findings = await Lint().findings(write(root, "app.py", "def broken(:\n    pass\n"))

    assert ("invalid-syntax", 1, Severity.HIGH) in found(findings)


async def test_security_finds_a_shell_and_unsafe_deserialisation(root: Path) -> None:
    path = write(
        root,
        "app.py",
        """\
        import pickle
        import subprocess

        def run(command, data):
            subprocess.call(command, shell=True)
            return pickle.loads(data)
        """,
    )

    findings = await Security().findings(path)

    assert ("B602", 5, Severity.HIGH) in found(findings)
    assert ("B301", 6, Severity.MEDIUM) in found(findings)


async def test_complexity_finds_functions_and_methods_with_many_paths_and_leaves_simple_ones_alone(
    root: Path,
) -> None:
    def branches(count: int, indent: str) -> str:
        return "".join(f"{indent}if value == {number}:\n{indent}    return\n" for number in range(count))

    text = (
        "def simple(value):\n    return value\n\n"
        f"def tangled(value):\n{branches(12, '    ')}\n"
        f"class Tangle:\n    def worse(self, value):\n{branches(35, '        ')}"
    )

    findings = await Complexity().findings(write(root, "app.py", text))

    by_rule = {each.rule: each for each in findings}
    assert set(by_rule) == {"complexity-C", "complexity-E"}
    assert by_rule["complexity-C"].severity is Severity.LOW
    assert by_rule["complexity-C"].line == 4
    assert by_rule["complexity-C"].message == "function tangled has a cyclomatic complexity of 13"
    assert by_rule["complexity-E"].severity is Severity.HIGH
    assert "Tangle.worse" in by_rule["complexity-E"].message


async def test_dead_code_is_what_no_file_of_the_tree_uses(root: Path) -> None:
    library = write(
        root,
        "library.py",
        """\
        def used_elsewhere():
            return 1


        def used_nowhere():
            return 2
        """,
    )
    caller = write(root, "package/caller.py", "from library import used_elsewhere\n\nused_elsewhere()\n")
    check = DeadCode(SourceTree(root))

    findings = await check.findings(library)

    assert found(findings) == {("unused-function", 5, Severity.LOW)}
    assert "used_nowhere" in findings[0].message
    assert await check.findings(caller) == []


async def test_unreachable_code_is_more_than_a_suspicion(root: Path) -> None:
    path = write(root, "app.py", "def run():\n    return 1\n    print('never')\n\nrun()\n")

    assert found(await DeadCode(SourceTree(root)).findings(path)) == {
        ("unreachable-code", 3, Severity.MEDIUM)
    }


async def test_what_a_decorator_registers_is_not_dead(root: Path) -> None:
    path = write(root, "app.py", "import web\n\n@web.get('/')\ndef page():\n    return ''\n")

    assert await DeadCode(SourceTree(root)).findings(path) == []


def checks(root: Path) -> dict[str, Check]:
    return {kind: role.make_check(SourceTree(root)) for kind, role in ROLES.items()}


@pytest.mark.parametrize("kind", ["security", "complexity", "dead-code"])
@pytest.mark.parametrize(
    "content",
    [b"def broken(:\n", b'text = "caf\xe9"\n', b"import os\nx = 1\0\n", b"x = a" + b".b" * 50_000 + b"\n"],
    ids=["broken syntax", "not UTF-8", "null byte", "nested too deeply"],
)
async def test_a_file_that_python_cannot_read_is_unreadable_and_harms_no_other(
    root: Path, kind: str, content: bytes
) -> None:
    bad = root / "bad.py"
    bad.write_bytes(content)
    good = write(root, "good.py", "def unused():\n    return 1\n")
    check = checks(root)[kind]

    with pytest.raises(Unreadable) as caught:
        await check.findings(bad)

    assert str(caught.value)
    assert len(await check.findings(good)) == (1 if kind == "dead-code" else 0)


@pytest.mark.parametrize(
    "content",
    [b'text = "caf\xe9"\n', b"x = " + b"-" * 100_000 + b"1\n"],
    ids=["not UTF-8", "crashes the tool"],
)
async def test_a_file_that_lint_cannot_read_is_unreadable(root: Path, content: bytes) -> None:
    bad = root / "bad.py"
    bad.write_bytes(content)

    with pytest.raises(Unreadable):
        await Lint().findings(bad)


@pytest.mark.parametrize("kind", ROLES)
async def test_an_empty_file_has_no_findings(root: Path, kind: str) -> None:
    assert await checks(root)[kind].findings(write(root, "empty.py", "")) == []


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("invalid-syntax", Severity.HIGH),
        ("F821", Severity.HIGH),
        ("F811", Severity.MEDIUM),
        ("F401", Severity.LOW),
        ("B008", Severity.MEDIUM),
        ("UP034", Severity.LOW),
        ("RUF006", Severity.MEDIUM),
        ("RUF005", Severity.LOW),
    ],
)
def test_the_longest_beginning_of_a_rule_decides_how_severe_it_is(rule: str, expected: Severity) -> None:
    assert lint_severity(rule) is expected


def test_what_bandit_is_not_sure_of_is_not_high() -> None:
    assert security_severity("HIGH", "HIGH") is Severity.HIGH
    assert security_severity("HIGH", "LOW") is Severity.MEDIUM
    assert security_severity("LOW", "LOW") is Severity.LOW


async def test_a_module_of_the_reviewed_tree_is_not_imported_by_the_tools(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trap = root / "trapped"
    for name in ("json.py", "ast.py", "bandit.py", "yaml.py"):
        write(root, name, f"open({str(trap)!r}, 'w').close()\n")
    monkeypatch.chdir(root)

    for check in checks(root).values():
        await check.findings(root / "json.py")

    assert not trap.exists()


async def test_a_tool_that_takes_too_long_is_ended(root: Path) -> None:
    with pytest.raises(Unreadable, match=r"after 0\.2 s"):
        await run_tool("http.server", "--bind", "127.0.0.1", "0", timeout=0.2)


async def test_a_tool_that_prints_without_end_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tool, "MAX_OUTPUT_BYTES", 100)

    with pytest.raises(Unreadable, match="more was found in it than 100 bytes"):
        await run_tool("this")  # the Zen of Python


async def test_a_tool_that_fails_says_why() -> None:
    with pytest.raises(Unreadable, match=r"no_such_tool ended with exit code 1: .*No module named"):
        await run_tool("no_such_tool", accepted=[0])


def test_missing_tools_are_named_with_the_command_that_installs_them() -> None:
    with pytest.raises(MeshError, match=r"no_such_tool.*pip install 'weft\[demo\]'"):
        check_installed({"ruff", "no_such_tool"})


def test_all_tools_of_the_crew_are_installed_and_have_a_version() -> None:
    check_installed({role.tool for role in ROLES.values()})
    assert all(tool_version(role.tool)[0].isdigit() for role in ROLES.values())
