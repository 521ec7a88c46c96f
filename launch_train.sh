#!/usr/bin/env bash
# Trains with one process per device under torchrun, and goes on with the run if it exists.
#   ./launch_train.sh                          the built-in data, the tiny preset
#   ./launch_train.sh --nproc 4 --preset gpt2  any option of `python -m mygpt2 train`
# Several nodes: NNODES, NODE_RANK, MASTER_ADDR, MASTER_PORT, RDZV_ID, or SLURM's own variables.
set -euo pipefail
trap 'exit 130' INT  # else bash would wait for what it runs, and go on
trap 'exit 143' TERM

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
export PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}"
needed="torch pydantic pyarrow psutil safetensors tiktoken tokenizers httpx matplotlib"
. "$here/scripts/find_python.sh"
find_python
block=()
if env --block-signal=INT true 2>/dev/null; then # GNU: held back until Python has handlers, lest it die with a stack
    block=(env --block-signal=INT,TERM,HUP)
fi
exec ${block[@]+"${block[@]}"} "$python" -m mygpt2.launch "$@"
