#!/usr/bin/env bash
# Sourced by the launch scripts: sets `python` to an interpreter that has what is needed, and makes .venv if none has.
# Looked for in this order: $PYTHON, the active environment, .venv beside the scripts, python3.
# Before: here=<folder of the project>, needed=<modules, by spaces>.
set -euo pipefail

is_complete() { # interpreter: has it what is needed? Looks only, imports nothing.
    "$1" - "$needed" >/dev/null 2>&1 <<'PY'
import importlib.util as util, sys
sys.exit(sys.version_info < (3, 11) or not all(map(util.find_spec, sys.argv[1].split())))
PY
}

find_complete() { # the first interpreter that has everything
    local candidate
    for candidate in "${PYTHON:-}" "${VIRTUAL_ENV:+$VIRTUAL_ENV/bin/python}" "${CONDA_PREFIX:+$CONDA_PREFIX/bin/python}" \
        "$here/.venv/bin/python" python3; do
        if [[ -n $candidate ]] && is_complete "$candidate"; then
            python=$candidate
            return
        fi
    done
}

find_base() { # the first interpreter that can make an environment
    local candidate
    for candidate in "${PYTHON:-}" python3 python3.13 python3.12 python3.11; do
        if [[ -n $candidate ]] && "$candidate" -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            base=$candidate
            return
        fi
    done
    echo "error: no Python from 3.11 up was found; install one, or name it with PYTHON=/path/to/python" >&2
    exit 2
}

make_python() { # the lock keeps two launches from making one environment; it belongs to the open file, not to a process
    find_base
    exec 9>"$here/.venv.lock"
    "$base" -c 'import fcntl; fcntl.flock(9, fcntl.LOCK_EX)'
    python=$here/.venv/bin/python
    if ! is_complete "$python"; then
        echo "launch: installing into $here/.venv, once"
        "$base" -m venv "$here/.venv"
        "$python" -m pip install --editable "$here"
    fi
    exec 9>&-
}

find_python() {
    python='' base=''
    find_complete
    [[ -n $python ]] || make_python
}
