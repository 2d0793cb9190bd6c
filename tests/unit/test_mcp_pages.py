"""Pages of lists that change while they are read."""

from __future__ import annotations

import json

import pytest

from weft.controlplane.mcp import pages
from weft.controlplane.mcp.pages import MAX_PAGE, MAX_PAGE_BYTES, Page
from weft.errors import InvalidRequest
from weft.model.mcp_catalogue import McpServer, PublishedTool
from weft.model.offer import McpGeneration


def tools(*originals: str, server: str = "a", described: str = "") -> list[PublishedTool]:
    of = McpServer(server, "/mcp", McpGeneration.STATELESS)
    return [
        PublishedTool(f"{server}_{each}", of, each, {"name": each, "description": described})
        for each in originals
    ]


def page_of(entries: list[PublishedTool], cursor: str | None) -> Page[PublishedTool]:
    return pages.page_of(entries, cursor, lambda it: json.dumps(it).encode())


def originals(entries: list[PublishedTool]) -> list[str]:
    """Those on all pages, one after the other."""
    found: list[str] = []
    cursor: str | None = None
    while True:
        page = page_of(entries, cursor)
        found += [each.original for each in page.entries]
        cursor = page.next
        if cursor is None:
            return found


def test_a_list_of_a_page_has_no_next_one() -> None:
    everything = tools(*(str(each) for each in range(MAX_PAGE)))

    assert page_of(everything, None).next is None
    assert page_of([*everything, *tools("last")], None).next is not None
    assert page_of([], None).entries == []


def test_pages_have_so_many_bytes_at_most_but_one_entry_at_least() -> None:
    large = tools("1", "2", "3", described="x" * (MAX_PAGE_BYTES // 2))
    huge = tools("1", "2", described="x" * MAX_PAGE_BYTES)

    assert [each.original for each in page_of(large, None).entries] == ["1"]
    assert originals(large) == ["1", "2", "3"]
    assert originals(huge) == ["1", "2"]


def test_a_cursor_holds_though_entries_before_it_come_and_go() -> None:
    many = tools(*(f"t{each}" for each in range(MAX_PAGE + 5)))
    cursor = page_of(many, None).next

    assert page_of(many[3:], cursor).entries[0].original == f"t{MAX_PAGE}"
    assert page_of([*tools("new"), *many], cursor).entries[0].original == f"t{MAX_PAGE}"


def test_where_the_entry_of_a_cursor_is_gone_the_next_server_follows() -> None:
    entries = [*tools(*(str(each) for each in range(MAX_PAGE)), server="a"), *tools("x", "y", server="b")]
    cursor = page_of(entries, None).next
    gone = [each for each in entries if each.original != str(MAX_PAGE - 1)]

    assert [each.original for each in page_of(gone, cursor).entries] == ["x", "y"]
    assert page_of(gone[:-2], cursor).entries == []


@pytest.mark.parametrize("cursor", ["", "?", "AAAA", "W10=", "WzEsMl0=", "e30=", "\u0430", "A" * 100_000])
def test_what_was_never_a_cursor_is_refused(cursor: str) -> None:
    with pytest.raises(InvalidRequest, match="no cursor"):
        page_of(tools("x"), cursor)
