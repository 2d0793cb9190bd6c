#!/bin/sh
# Makes .venv and puts uv into it, without touching the system's Python.
# Debian's Python may lack ensurepip, and refuses `pip install` outside an environment (PEP 668), so:
# a whole venv where that works, else a bare one filled by whichever installer the machine has.
set -eu
python="${PYTHON:-python3}"
uv="uv==${UV_VERSION:?set by the Makefile}"

if ! "$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 15))' 2>/dev/null; then
    echo "Weft needs Python 3.11 to 3.14; '$python' is $("$python" --version 2>&1 || echo missing)." >&2
    echo "Name another one: make PYTHON=python3.12" >&2
    exit 1
fi
if "$python" -m venv --clear .venv >/dev/null 2>&1; then
    .venv/bin/python -m pip install --quiet --disable-pip-version-check "$uv"
elif "$python" -m venv --clear --without-pip .venv && "$python" -m pip --version >/dev/null 2>&1; then
    "$python" -m pip --python .venv/bin/python install --quiet --disable-pip-version-check "$uv"
elif command -v uv >/dev/null 2>&1; then
    uv pip install --quiet --python .venv/bin/python "$uv"
else
    rm -rf .venv
    echo "'$python' has neither ensurepip nor pip, so nothing can be installed." >&2
    echo "On Debian or Ubuntu: apt-get install python3-venv" >&2
    exit 1
fi
