"""The documentation says what the code does: it is compared with it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from docs import generate

from weft.cli.main import COMMANDS
from weft.controlplane.settings import ControlPlaneSettings
from weft.model.manifest import check_together, parse_documents

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
README = ROOT / "README.md"
SOURCES = sorted((ROOT / "src" / "weft").rglob("*.py"))
PAGES = [README, ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md"))]

_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)|(?:src|srcset|href)=\"([^\"]+)\"")
_FENCE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
_QUOTED_CODE = re.compile(
    r"^```(?:python|yaml)\n# (?P<file>examples/\S+)\n(?P<code>.*?)^```", re.DOTALL | re.MULTILINE
)


_METRIC = re.compile(r"(?<![\w:-])weft_[a-z]+_[a-z_]+\b(?![*:])")
_MANIFEST = re.compile(r"^```yaml\n(?P<text>(?:#[^\n]*\n)?apiVersion: .*?)^```", re.DOTALL | re.MULTILINE)


def named_in_code(pattern: str) -> set[str]:
    """Every string in the sources that is, as a whole, a match of `pattern`."""
    literal = re.compile(rf"[\"']({pattern})[\"']")
    return {found for path in SOURCES for found in literal.findall(path.read_text())}


def links(page: Path) -> Iterator[str]:
    """Where a page's links lead, but for those out of the repository."""
    for match in _LINK.finditer(_FENCE.sub("", page.read_text())):
        target = match[1] or match[2]
        if "://" not in target:
            yield target


def anchors(page: Path) -> set[str]:
    """The headings of a page, as links name them."""
    headings = re.findall(r"^#+ (.+)$", _FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings}


@pytest.mark.parametrize("page", generate.pages(), ids=lambda page: page.name)
def test_the_generated_parts_are_those_the_code_gives(page: Path) -> None:
    text = page.read_text()
    assert text == generate.generated(text), "stale: run `python docs/generate.py`"


def test_every_generated_part_is_shown_on_a_page() -> None:
    shown = "".join(page.read_text() for page in generate.pages())
    assert {name for name in generate.BLOCKS if f"<!-- generated: {name} -->" in shown} == set(
        generate.BLOCKS
    )


def test_no_meaning_is_written_down_that_the_code_gives_itself() -> None:
    assert generate.documented_elsewhere() == set()


def test_every_command_is_documented() -> None:
    text = (DOCS / "cli.md").read_text()
    assert [each.name for each in COMMANDS if f"\n## weft {each.name}\n" not in text] == []


@pytest.mark.parametrize(
    ("pattern", "page", "least"),
    [
        ("x-weft-[a-z-]+", "headers.md", 6),
        ("WEFT_[A-Z]+(?:_[A-Z]+)*", "settings.md", 16),
        ("weft_[a-z]+_[a-z_]+", "metrics.md", 40),
    ],
    ids=["headers", "variables", "metrics"],
)
def test_every_name_that_the_code_gives_the_world_is_documented(pattern: str, page: str, least: int) -> None:
    names = named_in_code(pattern)
    text = (DOCS / page).read_text()
    assert len(names) >= least, names
    assert sorted(name for name in names if name not in text) == []


@pytest.mark.parametrize(
    ("pattern", "page"),
    [
        ("x-weft-[a-z-]+", "headers.md"),
        ("WEFT_[A-Z]+(?:_[A-Z]+)*", "settings.md"),
    ],
    ids=["headers", "variables"],
)
def test_no_name_is_documented_that_the_code_does_not_have(pattern: str, page: str) -> None:
    documented = set(re.findall(rf"`({pattern})(?:\{{type\}})?`", (DOCS / page).read_text()))
    settings = {f"WEFT_CONTROL_{name.upper()}" for name in ControlPlaneSettings.model_fields}
    assert documented - settings - named_in_code(pattern) == set()


def test_no_metric_is_named_that_the_code_does_not_make() -> None:
    made = {each.name for each in generate.metrics()} | named_in_code("weft_[a-z]+_[a-z_]+")
    made |= {f"{each.name}{end}" for each in generate.metrics() for end in ("_bucket", "_count", "_sum")}
    files = [*PAGES, *sorted((ROOT / "deploy").rglob("*.*"))]
    named = {found for each in files for found in _METRIC.findall(each.read_text())}
    assert named - made == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_links_of_every_page_lead_somewhere(page: Path) -> None:
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name} links to {link}"
        if anchor:
            assert anchor in anchors(target), f"{page.name} links to {link}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_manifests_that_pages_show_are_valid(page: Path) -> None:
    for match in _MANIFEST.finditer(page.read_text()):
        check_together(parse_documents(match["text"], page.name))


def test_the_readme_links_to_every_page() -> None:
    linked = {(ROOT / each.partition("#")[0]).resolve() for each in links(README)}
    assert set(DOCS.glob("*.md")) - linked == set()


def test_the_code_that_the_readme_shows_is_that_of_the_examples() -> None:
    quoted = list(_QUOTED_CODE.finditer(README.read_text()))
    assert quoted
    for match in quoted:
        shown = [part.strip("\n") for part in match["code"].split("# ...\n")]
        example = (ROOT / match["file"]).read_text()
        assert [part for part in shown if part not in example] == []


def test_the_makes_that_the_readme_names_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"^`?make ([a-z]+)", _prose_in_code(README), re.MULTILINE))
    assert {"demo", "test", "bench"} <= named <= targets


def _prose_in_code(page: Path) -> str:
    return "\n".join(re.findall(r"`[^`]+`|^```.*?^```", page.read_text(), re.DOTALL | re.MULTILINE))
