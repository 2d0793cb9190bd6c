"""A mesh's directory: who owns it, and what it says of the mesh."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from weft.errors import Conflict, InvalidRequest, Unavailable
from weft.local.home import MeshHome
from weft.model.local_state import MeshPorts, MeshState, encode_state, mesh_directory, mesh_name, parse_state
from weft.sdk.local_mesh import running_mesh

STATE = MeshState(
    name="default",
    pid=4711,
    started_at=1.5,
    ports=MeshPorts(api=7400, xds=7401, nats=7402, proxy=7403, dashboard=7404, metrics=7405),
)


def _environ(home: Path) -> dict[str, str]:
    return {"WEFT_HOME": str(home)}


def test_a_mesh_is_found_while_it_runs_and_not_after(tmp_path: Path) -> None:
    environ = _environ(tmp_path)
    home = MeshHome(mesh_directory(environ, "default"))
    assert running_mesh(environ) is None
    with home.held():
        assert running_mesh(environ) is None, "it has not said yet where it is"
        home.write_state(STATE)
        assert running_mesh(environ) == STATE
        assert running_mesh(environ, "other") is None
    assert running_mesh(environ) is None


def test_a_mesh_that_was_killed_is_not_found_though_its_state_is_still_there(tmp_path: Path) -> None:
    directory = mesh_directory(_environ(tmp_path), "default")
    script = (
        "import os, signal, sys; from pathlib import Path; from weft.local.home import MeshHome\n"
        f"with MeshHome(Path({str(directory)!r})).held():\n"
        f"    Path({str(directory / 'state.json')!r}).write_text({encode_state(STATE)!r})\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", script], timeout=30, check=False)
    assert (directory / "state.json").exists()
    assert running_mesh(_environ(tmp_path)) is None


def test_two_meshes_cannot_share_a_directory(tmp_path: Path) -> None:
    with (
        MeshHome(tmp_path / "one").held(),
        pytest.raises(Conflict, match=r"'one' is running already.*weft down"),
    ):
        MeshHome(tmp_path / "one").held().__enter__()


def test_only_its_user_may_read_a_mesh_s_directory_and_state(tmp_path: Path) -> None:
    home = MeshHome(tmp_path / "one")
    with home.held():
        home.write_state(STATE)
        modes = [
            stat.S_IMODE(path.stat().st_mode) for path in (home.directory, home.directory / "state.json")
        ]
    assert modes == [0o700, 0o600]


def test_a_directory_that_cannot_be_made_is_told_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable, match="WEFT_HOME"):
        MeshHome(tmp_path / "file" / "one").held().__enter__()


@pytest.mark.parametrize("garbage", ["", "{}", "[]", "\x00", '{"name": "x", "pid": 1}', "9" * 100])
def test_a_garbled_state_is_no_state(tmp_path: Path, garbage: str) -> None:
    home = MeshHome(mesh_directory(_environ(tmp_path), "default"))
    with pytest.raises(InvalidRequest):
        parse_state(garbage)
    with home.held():
        (home.directory / "state.json").write_text(garbage)
        assert running_mesh(_environ(tmp_path)) is None


def test_the_state_is_json_that_other_programs_can_read() -> None:
    told = json.loads(encode_state(STATE))
    assert told["ports"] == {
        "api": 7400,
        "xds": 7401,
        "nats": 7402,
        "proxy": 7403,
        "dashboard": 7404,
        "metrics": 7405,
    }
    assert told["startedAt"] == 1.5
    assert parse_state(encode_state(STATE)) == STATE


def test_a_mesh_s_name_cannot_lead_out_of_the_home() -> None:
    with pytest.raises(InvalidRequest):
        mesh_directory({}, "../other")
    with pytest.raises(InvalidRequest):
        mesh_name({"WEFT_MESH": "a/b"})


def test_fresh_data_forgets_what_nats_kept(tmp_path: Path) -> None:
    home = MeshHome(tmp_path / "one")
    with home.held():
        (home.nats / "kept").write_text("")
        home.forget_data()
        assert list(home.nats.iterdir()) == []
