"""A resume that is refused leaves the run as it was."""

import json
from pathlib import Path

import pytest

from mygpt2.errors import UserError
from mygpt2.run_dir import RunDir, read_events, state_of
from tests.train.test_attempt import cache, source, train  # noqa: F401 (fixtures)

KEPT = ("config.toml", "command.json", "status.json", "exit.json")


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in KEPT}


@pytest.mark.parametrize(
    "change",
    [{"train__seed": 7}, {"train__batch_tokens": 512}, {"data__tokenizer": "gpt2:600"}, {"model__n_embd": 32}],
    ids=str,
)
def test_a_refused_resume_leaves_config_command_status_and_exit_as_they_were(train, change):  # noqa: F811
    assert train(steps=4) == 0
    folder = train.runs / "run"
    was = contents(folder)
    with pytest.raises(UserError):
        train(steps=8, **change)
    assert contents(folder) == was
    run = RunDir(folder)
    assert state_of(run).state == "finished"
    refusal = read_events(run, ["alert"])[-1]
    assert refusal["message"].startswith("attempt 2 was refused, the run is as it was: ")
    assert json.loads((folder / "attempts" / "2" / "exit.json").read_text())["state"] == "refused"
    assert train(steps=6) == 0, "the run goes on as if nobody had asked"
    assert "steps = 6" in (folder / "config.toml").read_text()
