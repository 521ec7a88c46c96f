"""No rank outlives its launcher, whenever that is killed: also while the rank is being started."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# A launcher that starts a rank and is gone before the rank can ask the system to be told of that.
LAUNCHER = """
import os, subprocess, sys
env = {**os.environ, "TORCHELASTIC_RUN_ID": "x", "MYGPT2_LAUNCHER": str(os.getpid())}
subprocess.Popen([sys.executable, "-c", sys.argv[1]], env=env)
os._exit(0)
"""
RANK = """
import os, sys, time
launcher = int(os.environ["MYGPT2_LAUNCHER"])
while os.getppid() == launcher:
    time.sleep(0.001)
from mygpt2.early import prepare
prepare()
print("lives on", flush=True)
"""


def test_a_rank_whose_launcher_died_before_its_imports_ends_at_once():
    done = subprocess.run([sys.executable, "-c", LAUNCHER, RANK], cwd=ROOT, capture_output=True, timeout=60, text=True)
    assert done.stdout == "" and done.stderr == ""  # both ends of the pipe are closed: the rank is gone


@pytest.mark.parametrize("env", [{}, {"TORCHELASTIC_RUN_ID": "x", "MYGPT2_LAUNCHER": str(os.getpid())}])
def test_one_with_a_living_launcher_or_without_any_goes_on(env):
    code = "from mygpt2.early import prepare; prepare(); print('goes on')"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, timeout=60, text=True, env={**os.environ, **env}
    )
    assert done.stdout == "goes on\n"


def test_the_check_comes_before_anything_that_takes_time():
    code = (
        "import sys, mygpt2.early; print([m for m in ('torch', 'numpy', 'argparse', 'pydantic') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, timeout=60, text=True)
    assert done.stdout == "[]\n"
    for module, first in (("__main__.py", "import argparse"), ("launch/__main__.py", "from mygpt2.launch")):
        text = (ROOT / "mygpt2" / module).read_text()
        assert text.index("early.prepare()") < text.index(first)
