"""What `weft kubernetes nats` says of flags that make no sense."""

from __future__ import annotations

from pathlib import Path

import pytest

from weft.cli.exit_codes import ExitCode
from weft.cli.main import run

PEERS = [f"--peer=nats-{number}:6222" for number in range(3)]


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (["--name=Nats_0"], "'Nats_0' is not a valid name"),
        (["--listen=localhost"], "--listen localhost: is no IP address"),
        (PEERS, "--advertise: say by which host others reach this server"),
        (["--advertise=nats-0", "--peer=nats-0"], "'nats-0' is not host:port"),
        (["--advertise=nats-0", *PEERS[:2]], "name three servers or more"),
        (["--max-store=much"], "--max-store much: is no quantity"),
        ([], "control.public cannot be used"),
    ],
)
def test_flags_that_make_no_sense_are_told_of(
    flags: list[str], text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--name=nats-0", f"--keys={tmp_path}", f"--store={tmp_path / 'store'}"]
    given = [
        each for each in given if each.partition("=")[0] not in {flag.partition("=")[0] for flag in flags}
    ]
    assert run(["kubernetes", "nats", *given, *flags]) == ExitCode.USAGE
    assert text in capsys.readouterr().err
