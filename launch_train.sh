#!/usr/bin/env bash
# Trains with one process per device under torchrun, and goes on with the run if it exists.
#   ./launch_train.sh                          the built-in data, the tiny preset
#   ./launch_train.sh --nproc 4 --preset gpt2  any option of `python -m mygpt2 train`
# Several nodes: NNODES, NODE_RANK, MASTER_ADDR, MASTER_PORT, RDZV_ID, or SLURM's own variables.
set -euo pipefail

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
export PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}"
needed="torch pydantic pyarrow psutil safetensors tiktoken tokenizers httpx matplotlib"
. "$here/scripts/find_python.sh"
find_python
exec "$python" -m mygpt2.launch "$@"
