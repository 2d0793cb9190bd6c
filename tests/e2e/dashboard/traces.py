"""The pages of traces: what is found, and one as a waterfall."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import time
from typing import Any
from urllib.parse import urlencode

from playwright.async_api import Locator, expect
from tests.e2e.dashboard.browser import LIMIT, Tab
from tests.e2e.dashboard.stage import CONVERSATIONS, Stage

from weft.aio.poll import until

EVIL = "<img src=x onerror=alert(1)>"

HERE = "traces-check"
"""What these spans have in their names, so that they are found."""

MANY = 600


async def check(stage: Stage) -> None:
    """Traces are found, drawn, and walked through; nothing in them is more than text."""
    await _finds_what_was_called(stage)
    await _draws_a_call_through_the_mesh(stage)
    await _shows_what_programs_say_as_text(stage)
    await _draws_many_spans(stage)
    await _says_what_is_not_there(stage)


async def _finds_what_was_called(stage: Stage) -> None:
    failed = await _newest(stage, destination="summarizer", status="error", context=CONVERSATIONS[0])
    tab = await stage.open("/traces?destination=summarizer&status=error")
    await tab.row(failed["id"], "invoke_agent planner")
    page = tab.page
    await page.get_by_label("Conversation").fill(CONVERSATIONS[0])
    await page.get_by_role("button", name="Search").click()
    await tab.row(failed["id"], CONVERSATIONS[0])
    await expect(page).to_have_url(re.compile(f"context={CONVERSATIONS[0]}"), timeout=LIMIT)
    assert "status=error" in page.url
    await page.get_by_label("Service").fill("nobody-is-called-so")
    await page.get_by_label("Service").press("Enter")
    await tab.seen("No traces are found")
    await page.get_by_role("button", name="Show all").click()
    await tab.row(failed["id"])
    await page.get_by_label("Text or trace id").fill(failed["id"])
    await page.get_by_role("button", name="Search").click()
    await expect(_rows(tab).first).to_be_visible(timeout=LIMIT)
    await tab.close()


async def _draws_a_call_through_the_mesh(stage: Stage) -> None:
    failed = await _newest(stage, destination="summarizer", status="error", context=CONVERSATIONS[0])
    tab = await stage.open(f"/traces/{failed['id']}")
    page, rows = tab.page, _rows(tab)
    await expect(rows.first).to_have_attribute("aria-level", "1", timeout=LIMIT)
    await expect(page.locator('[role=treeitem][aria-level="3"]').first).to_be_visible(timeout=LIMIT)
    await expect(page.locator(".weft-wf-row.failed").first).to_be_visible(timeout=LIMIT)
    # By keyboard alone: close the first, open it again, go down, open what is known of it, close that.
    everything = await rows.count()
    await rows.first.focus()
    await page.keyboard.press("ArrowLeft")
    await expect(rows).not_to_have_count(everything, timeout=LIMIT)
    await expect(rows.first).to_be_focused(timeout=LIMIT)
    await page.keyboard.press("ArrowRight")
    await expect(rows).to_have_count(everything, timeout=LIMIT)
    await expect(rows.first).to_be_focused(timeout=LIMIT)
    await page.keyboard.press("ArrowDown")
    await expect(rows.nth(1)).to_be_focused()
    await page.keyboard.press("Enter")
    details = page.get_by_role("region", name="Span")
    await expect(details).to_contain_text("Attributes", timeout=LIMIT)
    await expect(rows.nth(1)).to_have_attribute("aria-selected", "true", timeout=LIMIT)
    await expect(page).to_have_url(re.compile("span="), timeout=LIMIT)
    await page.keyboard.press("Escape")
    await expect(details).to_be_hidden(timeout=LIMIT)
    await expect(rows.nth(1)).to_be_focused(timeout=LIMIT)
    # Whose conversation it is part of, and by a link to one span, that span.
    await expect(page.get_by_role("main").get_by_role("link", name="Conversation")).to_have_attribute(
        "href", f"/dashboard/conversations?id={CONVERSATIONS[0]}"
    )
    await page.get_by_role("button", name="Next error").click()
    await expect(details).to_contain_text("Failed", timeout=LIMIT)
    await expect(page).to_have_url(re.compile("span="), timeout=LIMIT)
    link = page.url.partition("/dashboard")[2]
    await tab.close()
    tab = await stage.open(link, dark=True, width=390)
    await expect(tab.page.get_by_role("region", name="Span")).to_contain_text("Failed", timeout=LIMIT)
    await tab.fits()
    await tab.close()


async def _shows_what_programs_say_as_text(stage: Stage) -> None:
    said = [{"role": "user", "parts": [{"type": "text", "content": f"say {EVIL}"}]}]
    attributes = {
        "gen_ai.operation.name": "chat",
        "gen_ai.usage.input_tokens": 41,
        "gen_ai.usage.output_tokens": 7,
        "gen_ai.input.messages": json.dumps(said),
        "gen_ai.tool.call.result": EVIL,
        ":onclick": "window.PWNED = 1",
        EVIL: EVIL,
    }
    trace = _Trace()
    top = trace.add(f"{HERE} {EVIL}", "", 0.0, 1.0, attributes)
    trace.add(EVIL, top, 0.2, 0.1, {"weft.context": EVIL}, error=f"failed: {EVIL}", event=EVIL)
    trace.add("its clock is slow", top, -30.0, 0.5, {}, instance="elsewhere")
    trace.add("its parent is lost", "00f067aa0ba902b7", 0.5, 0.1, {})
    await _send(stage, trace)
    tab = await stage.open(f"/traces?{urlencode({'q': HERE})}", dark=True, width=390)
    await tab.row(trace.id, EVIL)
    await tab.fits()
    await tab.close()
    tab = await stage.open(f"/traces/{trace.id}")
    page, rows = tab.page, _rows(tab)
    await expect(rows).to_have_count(4, timeout=LIMIT)
    await expect(rows.nth(2)).to_contain_text("clock adjusted")
    await expect(rows.nth(3)).to_contain_text("parent not recorded")
    await rows.first.click()
    details = page.get_by_role("region", name="Span")
    for text in (f"say {EVIL}", "41 in, 7 out", "gen_ai.tool.call.result", "window.PWNED = 1"):
        await expect(details).to_contain_text(text, timeout=LIMIT)
    await page.get_by_role("button", name="Next error").click()
    await expect(details).to_contain_text(f"Failed: failed: {EVIL}", timeout=LIMIT)
    await tab.close()


async def _draws_many_spans(stage: Stage) -> None:
    trace = _Trace()
    top = trace.add(f"{HERE} many", "", 0.0, float(MANY), {})
    for number in range(MANY // 10):
        part = trace.add(f"part {number}", top, number * 10.0, 9.0, {})
        for other in range(9):
            error = "the one that failed" if (number, other) == (50, 5) else ""
            trace.add(f"piece {number}.{other}", part, number * 10.0 + other, 1.0, {}, error=error)
    await _send(stage, trace)
    tab = await stage.open(f"/traces/{trace.id}")
    page, rows = tab.page, _rows(tab)
    # What has nothing wrong below it begins closed.
    await expect(rows).to_have_count(1 + MANY // 10 + 9, timeout=LIMIT)
    await page.get_by_role("button", name="Expand all").click()
    await expect(page.get_by_text(f"1 to 100 of {len(trace.spans):,}").first).to_be_visible(timeout=LIMIT)
    await page.get_by_role("button", name="Next error").click()
    await expect(page.locator("[role=treeitem][aria-selected=true]")).to_contain_text(
        "piece 50.5", timeout=LIMIT
    )
    await page.get_by_role("button", name="Further rows").click()
    await expect(rows.last).to_contain_text(f"piece {MANY // 10 - 1}.8", timeout=LIMIT)
    await tab.close()


async def _says_what_is_not_there(stage: Stage) -> None:
    tab = await stage.open(f"/traces/{secrets.token_hex(16)}")
    await tab.seen("is kept: it was not sampled, is too old, or has not been told of yet")
    await tab.close()


def _rows(tab: Tab) -> Locator:
    return tab.page.get_by_role("treeitem")


async def _newest(stage: Stage, **query: str) -> dict[str, Any]:
    """The newest trace that is found so, once one is."""
    path = f"/v1/traces?{urlencode({**query, 'limit': 1})}"

    found: list[dict[str, Any]] = []

    async def is_there() -> bool:
        found[:] = (await stage.mesh.api.ask("GET", path))["traces"]
        return bool(found)

    async with asyncio.timeout(60):
        await until(is_there)
    return found[0]


class _Trace:
    """A trace as OTLP has it in JSON."""

    def __init__(self) -> None:
        self.id = secrets.token_hex(16)
        self.begin = time.time() - 60
        self.spans: list[dict[str, Any]] = []

    def add(
        self,
        name: str,
        parent: str,
        start: float,
        duration: float,
        attributes: dict[str, Any],
        *,
        instance: str = "here",
        error: str = "",
        event: str = "",
    ) -> str:
        """Add a span, `start` seconds after the beginning; return its id."""
        span_id = secrets.token_hex(8)
        begin = int((self.begin + start) * 1e9)
        events = [{"name": event, "timeUnixNano": str(begin), "attributes": _pairs({"text": event})}]
        self.spans.append(
            {
                "traceId": self.id,
                "spanId": span_id,
                "parentSpanId": parent,
                "name": name,
                "kind": 1,
                "startTimeUnixNano": str(begin),
                "endTimeUnixNano": str(begin + int(duration * 1e9)),
                "attributes": _pairs(attributes),
                "status": {"code": 2, "message": error} if error else {},
                "events": events if event else [],
                "instance": instance,
            }
        )
        return span_id

    @property
    def document(self) -> dict[str, Any]:
        """What is sent: spans by the instance that they are of."""
        by_instance: dict[str, list[dict[str, Any]]] = {}
        for each in self.spans:
            span = dict(each)
            by_instance.setdefault(str(span.pop("instance")), []).append(span)
        return {
            "resourceSpans": [
                {
                    "resource": {"attributes": _pairs({"service.name": "odd", "service.instance.id": name})},
                    "scopeSpans": [{"spans": spans}],
                }
                for name, spans in by_instance.items()
            ]
        }


def _pairs(values: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"key": key, "value": {"intValue": str(each)} if isinstance(each, int) else {"stringValue": each}}
        for key, each in values.items()
    ]


async def _send(stage: Stage, trace: _Trace) -> None:
    """Send it, and wait until it is kept."""
    await stage.mesh.api.ask("POST", "/v1/traces", trace.document)

    async def kept() -> bool:
        found = await stage.mesh.api.ask("GET", f"/v1/traces?{urlencode({'q': trace.id})}")
        return bool(found["traces"]) and found["traces"][0]["spans"] == len(trace.spans)

    async with asyncio.timeout(60):
        await until(kept)
