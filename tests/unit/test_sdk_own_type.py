"""Which agent a program is, by the identity that its sidecar left for it."""

from __future__ import annotations

from pathlib import Path

from tests.pki import Pki

from weft.model.membership import CREDENTIALS_FILE, IDENTITY_VARIABLE
from weft.model.spiffe import SpiffeId, agent_id, operator_id
from weft.sdk.membership import own_agent_type


def environ(directory: Path, identity: SpiffeId) -> dict[str, str]:
    chain, key = Pki().svid(identity)
    (directory / CREDENTIALS_FILE).write_bytes(chain + key)
    return {IDENTITY_VARIABLE: str(directory)}


def test_an_agent_is_what_its_certificate_says(tmp_path: Path) -> None:
    assert own_agent_type(environ(tmp_path, agent_id("weft.local", "editor", "editor-1"))) == "editor"


def test_who_is_no_agent_has_no_type(tmp_path: Path) -> None:
    assert own_agent_type({}) is None
    assert own_agent_type({IDENTITY_VARIABLE: str(tmp_path)}) is None
    (tmp_path / CREDENTIALS_FILE).write_text("garbage")
    assert own_agent_type({IDENTITY_VARIABLE: str(tmp_path)}) is None
    assert own_agent_type(environ(tmp_path, operator_id("weft.local", "ops", "door"))) is None
