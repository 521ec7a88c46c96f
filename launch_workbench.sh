#!/usr/bin/env bash
# Opens the workbench on 127.0.0.1 over ./runs; any option of `python -m workbench` may follow.
set -euo pipefail

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
export PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}"
needed="gradio plotly torch pydantic pyarrow psutil safetensors tiktoken tokenizers httpx matplotlib"
. "$here/scripts/find_python.sh"
find_python
exec "$python" -m workbench "$@"
