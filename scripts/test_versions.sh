#!/usr/bin/env bash
# The engine's tests on other versions of PyTorch and Python than CI's, each pair in an environment of its own.
#   scripts/test_versions.sh                      2.10 on 3.13, 2.11 on 3.12, 2.13 on 3.11
#   scripts/test_versions.sh 2.11.0:3.12 [...]    these pairs; needs pythonX.Y on the path, or in $PYTHONS (folders)
# Arguments after -- go to pytest. The environments lie in $VERSIONS (.ci/versions) and are kept.
set -euo pipefail

cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
folder=${VERSIONS:-.ci/versions}
unset PYTHONPATH PYTHONHOME
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore HF_HUB_DISABLE_TELEMETRY=1 OMP_NUM_THREADS=1
PATH=${PYTHONS:+$PYTHONS:}$PATH

pairs=()
while (($#)) && [[ $1 != -- ]]; do
    pairs+=("$1")
    shift
done
(($#)) && shift
((${#pairs[@]})) || pairs=(2.10.0:3.13 2.11.0:3.12 2.13.0:3.11)

set_up() { # torch python: an environment with both; the stamp is written last
    local venv=$folder/$1-$2
    python=$venv/bin/python
    if [[ ! -f $venv/installed ]]; then
        if ! command -v "python$2" >/dev/null; then
            echo "error: python$2 was not found; install it, or name its folder with PYTHONS=/path/to/bin" >&2
            return 2
        fi
        rm -rf "$venv"
        "python$2" -m venv "$venv"
        "$python" -m pip install --quiet "torch==$1"
        "$python" -m pip install --quiet --editable '.[test]' "torch==$1"
        touch "$venv/installed"
    fi
}

failed=0
for pair in "${pairs[@]}"; do
    echo "== torch ${pair%%:*}, Python ${pair##*:}"
    if set_up "${pair%%:*}" "${pair##*:}"; then
        "$python" -m pytest -q -n 2 --dist loadfile --ignore tests/workbench tests "$@" </dev/null || failed=1
    else
        failed=1
    fi
done
exit "$failed"
