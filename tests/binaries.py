"""Where the programs are that tests start."""

from __future__ import annotations

import sys
from pathlib import Path

_SCRIPTS = Path(sys.executable).parent

ENVOY = _SCRIPTS / "envoy"
NATS_SERVER = _SCRIPTS / "nats-server"
WEFT = _SCRIPTS / "weft"
