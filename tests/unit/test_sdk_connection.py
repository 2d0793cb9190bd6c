"""How a program finds its sidecar."""

from __future__ import annotations

import pytest

from weft.errors import InvalidRequest, Unavailable
from weft.sdk.connection import find_proxy
from weft.sdk.mesh import Mesh


def test_the_environment_names_the_sidecar() -> None:
    assert find_proxy({"WEFT_PROXY": "http://127.0.0.1:15001/"}) == "http://127.0.0.1:15001"


def test_without_a_sidecar_the_error_tells_the_three_ways_out() -> None:
    with pytest.raises(Unavailable) as caught:
        find_proxy({})
    for way in ("weft run", "WEFT_PROXY=", "Mesh(proxy="):
        assert way in caught.value.detail


@pytest.mark.parametrize(
    "address", ["127.0.0.1:15001", "https://host:1", "http://host", "http://host:x", "http://h:1/path"]
)
def test_an_address_that_is_none_is_an_invalid_request(address: str) -> None:
    with pytest.raises(InvalidRequest, match="WEFT_PROXY"):
        find_proxy({"WEFT_PROXY": address})
    with pytest.raises(InvalidRequest, match="proxy"):
        Mesh(proxy=address)


async def test_a_client_without_a_sidecar_says_so_when_it_is_entered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WEFT_PROXY", raising=False)
    with pytest.raises(Unavailable, match="no sidecar"):
        async with Mesh():
            pass
