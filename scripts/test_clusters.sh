#!/usr/bin/env bash
# Several machines for real: SLURM with two nodes on this machine (one is killed, the job goes on), two networks without a
# scheduler, and the parser of SkyPilot. Debian and root; some three minutes, besides 500 MB to install once.
#   scripts/test_clusters.sh [arguments for pytest]
set -euo pipefail

cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
unset PYTHONPATH PYTHONHOME
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore OMP_NUM_THREADS=1 MYGPT2_CLUSTERS=1
PATH=$PATH:/usr/sbin:/sbin
python=${PYTHON:-.ci/venv/bin/python}
venv=${CLUSTERS:-.ci/clusters}

if [[ ! -x $(command -v "$python") ]]; then
    echo "error: $python was not found; run .ci/run once, or name an interpreter that has '.[test]' with PYTHON=" >&2
    exit 2
fi
if ! command -v slurmctld slurmd sbatch munged ip >/dev/null; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends slurmctld slurmd slurm-client munge iproute2 >/dev/null
fi
if [[ ! -f $venv/installed ]]; then
    rm -rf "$venv"
    "$python" -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet 'skypilot>=0.14' pytest
    "$venv/bin/python" -m pip install --quiet --no-deps --editable .
    touch "$venv/installed"
fi
failed=0
"$python" -m pytest -q -p no:xdist tests/launch/test_slurm.py tests/launch/test_namespaces.py "$@" || failed=1
"$venv/bin/python" -m pytest -q --noconftest -k skypilot_takes tests/launch/test_handover.py "$@" || failed=1
exit "$failed"
