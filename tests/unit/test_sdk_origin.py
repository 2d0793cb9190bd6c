"""Which pages may have a browser call what listens on loopback."""

from __future__ import annotations

import pytest

from weft.sdk.origin import from_elsewhere


@pytest.mark.parametrize(
    ("origins", "elsewhere"),
    [
        ([], False),
        (["http://localhost:3000"], False),
        (["https://127.0.0.1"], False),
        (["http://[::1]:80"], False),
        (["http://tools.mesh"], False),
        (["http://s1.summarizer.mesh.localhost:15001"], False),
        (["null"], True),
        ([""], True),
        (["https://evil.example"], True),
        (["http://localhost.evil.example"], True),
        (["http://tools.mesh.evil.example"], True),
        (["http://mesh"], True),
        (["http://localhost", "https://evil.example"], True),
        (["http://" + "a." * 5000], True),
    ],
)
def test_pages_of_this_machine_and_of_the_mesh_may(origins: list[str], elsewhere: bool) -> None:
    headers = [(b"origin", each.encode()) for each in origins]
    assert from_elsewhere({"type": "http", "headers": [(b"host", b"x"), *headers]}) is elsewhere
