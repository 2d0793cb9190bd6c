"""What holds for all tests."""

from __future__ import annotations

import signal

# A test run started in the background of a script has SIGINT ignored, and every process that it starts
# inherits that; but Ctrl-C is one of the things to be tested.
signal.signal(signal.SIGINT, signal.default_int_handler)
