"""The run folder: the only interface between a trainer and whoever watches it. Does not import torch."""

from mygpt2.inside import open_inside, read_inside
from mygpt2.run_dir.control import AT_STEP, FOLDER, MEANT, SIGNAL, ControlFiles
from mygpt2.run_dir.lines import Follower, LineWriter, last_record, parse_lines, read_records
from mygpt2.run_dir.liveness import ACTIVE, ENDED, RankState, RunState, rank_states, state_of
from mygpt2.run_dir.lock import RunLock
from mygpt2.run_dir.metrics import Metrics, read_events, read_metrics
from mygpt2.run_dir.paths import RUNS, RunDir, check_name, list_runs
from mygpt2.run_dir.process import Process
from mygpt2.run_dir.stop import StopReport, at_work, stop
from mygpt2.run_dir.writer import RunWriter, next_attempt, write_queued, write_rank

__all__ = [
    "ACTIVE", "AT_STEP", "ENDED", "FOLDER", "MEANT", "RUNS", "SIGNAL", "ControlFiles", "Follower", "LineWriter",
    "Metrics", "Process", "RankState", "RunDir", "RunLock", "RunState", "RunWriter", "StopReport", "at_work",
    "check_name", "last_record", "list_runs", "next_attempt", "open_inside", "parse_lines", "rank_states",
    "read_events", "read_inside", "read_metrics", "read_records", "state_of", "stop", "write_queued", "write_rank",
]  # fmt: skip
