"""Where push notifications may go, and where not."""

from __future__ import annotations

import pytest

from weft import InvalidRequest
from weft.sdk.a2a.push_address import check_push_url

READER = "spiffe://weft.local/agent/reader/reader-1"
OPERATOR = "spiffe://weft.local/operator/ops/laptop"


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8000/hook",
        "https://example.com/a?b=c",
        "http://[::1]:80/",
        "http://10.0.0.1/",
        "http://reader.mesh/hook",
        "http://READER.mesh./hook",
        "http://reader-2.reader.mesh/hook",
        "http://reader.mesh.localhost:15001/",
        "http://meshed.example/",
    ],
)
def test_receivers_are_outside_or_the_callers_own_agents(url: str) -> None:
    check_push_url(url, READER)


@pytest.mark.parametrize(
    "url",
    [
        "http://writer.mesh/",
        "http://reader.writer.mesh/",
        "http://control.mesh/v1/tokens",
        "http://llm.mesh/",
        "http://tools.mesh/mcp",
        "http://reader.cap.mesh/",
        "http://a.b.reader.mesh/",
        "http://mesh/",
        "http://control.mesh.localhost:15001/",
        "http://CONTROL.MESH./",
        "http://169.254.169.254/latest",
        "http://[fe80::1]/",
        "http://[::ffff:169.254.169.254]/",
        "http://0.0.0.0/",
        "http://2852039166/",
        "http://0xa9fea9fe/",
        "http://169.254.43518/",
        "http://224.0.0.1/",
        "http://user:word@example.com/",
        "ftp://example.com/",
        "http:///x",
        "http://example.com:0/",
        "http://example.com:99999/",
        "http://ex\nample.com/",
        "http://ex ample.com/",
        "junk",
        "",
        "http://example.com/" + "x" * 3000,
    ],
)
def test_nothing_else_is_told(url: str) -> None:
    with pytest.raises(InvalidRequest):
        check_push_url(url, READER)


def test_who_is_no_agent_has_nobody_in_the_mesh_told() -> None:
    for caller in (OPERATOR, "", "junk"):
        with pytest.raises(InvalidRequest):
            check_push_url("http://ops.mesh/", caller)
        check_push_url("http://127.0.0.1/", caller)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8000/",
        "http://127.1/",
        "http://[::1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://10.0.0.1/",
        "http://100.64.0.1/",
        "http://[fd00::1]/",
        "http://localhost:8000/",
        "http://LOCALHOST./",
        "http://agent.localhost/",
        "http://reader.mesh/hook",
    ],
)
def test_who_came_in_by_a_gateway_has_nobody_told_on_this_side_of_it(url: str) -> None:
    with pytest.raises(InvalidRequest):
        check_push_url(url, READER, outside=True)


def test_who_came_in_by_a_gateway_has_told_who_is_out_there() -> None:
    for url in ("https://example.com/hook", "http://8.8.8.8/", "http://[2606:4700::1111]/"):
        check_push_url(url, READER, outside=True)
