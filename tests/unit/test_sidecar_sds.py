from __future__ import annotations

import json
import stat
from pathlib import Path

from tests.pki import Pki

from weft.sidecar.sds import write_identity, write_trust


def test_secrets_are_for_this_user_only_and_nothing_else_is_left(tmp_path: Path) -> None:
    pki = Pki()
    for _ in range(2):
        write_identity(tmp_path, *pki.svid("spiffe://weft.local/agent/editor/e-1"))
        write_trust(tmp_path, pki.bundles())
    assert {each.name for each in tmp_path.iterdir()} == {"identity.json", "trust.json", "own-trust.json"}
    for each in tmp_path.iterdir():
        assert stat.S_IMODE(each.stat().st_mode) == stat.S_IRUSR | stat.S_IWUSR


def test_callers_of_federated_domains_are_believed_but_no_servers(tmp_path: Path) -> None:
    write_trust(tmp_path, Pki().bundles(Pki("partner.example")))
    assert domains(tmp_path / "trust.json") == ["weft.local", "partner.example"]
    assert domains(tmp_path / "own-trust.json") == ["weft.local"]


def domains(file: Path) -> list[str]:
    (secret,) = json.loads(file.read_text())["resources"]
    validator = secret["validation_context"]["custom_validator_config"]["typed_config"]
    return [each["name"] for each in validator["trust_domains"]]
