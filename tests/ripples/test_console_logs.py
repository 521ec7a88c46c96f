"""What training programs write to their consoles and files, read as they write it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import pytest

from mygpt2.ripples import read_log

N = 40
LOSSES = [round(4 - i / 100, 4) for i in range(N)]
STEPS = [*range(N)]


def lines(form: str, *, every: str = "", at: int = 10) -> str:
    """A line for each step, `i` the step and `x` its loss; before every tenth the line `every`."""
    return "".join(
        (every.format(i=i, x=9.0) if i % at == 0 else "") + form.format(i=i, x=x)
        for i, x in zip(STEPS, LOSSES, strict=False)
    )


PROGRAMS = {
    "nanoGPT": (
        "number of parameters: 123.59M\nnum decayed parameter tensors: 50, with 124,354,560 parameters\n"
        + lines(
            "iter {i}: loss {x:.4f}, time 82000.12ms, mfu -100.00%\n", every="step {i}: train loss 8.0, val loss {x}\n"
        )
    ),
    "llm.c's main.log": lines("s:{i} trl:{x:.4f} lr:0.000600 norm:0.31\n", every="s:{i} tel:{x}\ns:{i} eval:0.2451\n"),
    "llm.c's console": lines(
        "step    {i}/40 | loss {x:.6f} (+nanz)| norm 15.3 (+nanz)| lr 8.57e-07 | 3056 ms | 42.6% MFU | 1,714 tok/s\n",
        every="val loss {x}\n",
    ),
    "modded-nanogpt": "import os\nstep = 0\nprint(f'step:{step}/{n} train_loss:{x}')\n====\n"
    + lines(
        "step:{i}/40 train_loss:{x:.4f} train_time:100ms step_avg:nanms\n",
        every="step:{i}/40 val_loss:{x} train_time:0ms\n",
    ),
    "nanochat": lines(
        "step {i:05d}/00040 (0.00%) | loss: {x:.6f} | lrm: 1.00 | dt: 400.0ms | tok/sec: 1,300,000 | mfu: 47.1\n",
        every="Step {i:05d} | Validation bpb: 3.3013\n",
    ),
    "the Trainer": "[INFO|trainer.py:2134] ***** Running training *****\n"
    + lines(
        "{{'loss': {x}, 'grad_norm': nan, 'learning_rate': 5e-05, 'epoch': 0.01}}\n", every="{{'eval_loss': {x}}}\n"
    )
    + "{'train_runtime': 12.1, 'train_loss': 3.5, 'epoch': 1.0}\n",
    "the Trainer with strings": lines("{{'loss': '{x}', 'grad_norm': '1.2', 'learning_rate': '5e-05'}}\n"),
    "the Trainer beside its bar": lines("\r 10%|#  | {i}/40 [00:05<00:50,  1.9it/s]\r{{'loss': {x}, 'epoch': 0.1}}\n"),
    "Megatron-LM": lines(
        " [2026-01-02 03:04:05] iteration {i:8d}/ 500000 | consumed samples: 25600 | time per iteration (ms): 1234.5"
        " | learning rate: 1.500000E-04 | lm loss: {x:.6E} | loss scale: 1.0 | grad norm: 0.31 |\n"
    ),
    "GPT-NeoX": lines(
        "  samples/sec: 100.1 | iteration {i:8d}/ 500000 | elapsed time per iteration (ms): 330.5 | learning rate: "
        "6.000E-04 | approx flops per GPU: 50TFLOPS | lm_loss: {x:.6E} | loss scale: 1.0 |\n"
    ),
    "OLMo": lines(
        "2026-02-01 10:00:00.000\tnode:0\tolmo.train:970\tINFO\t[step={i}/1500]\n    train/CrossEntropyLoss={x}\n"
        "    train/Perplexity=9.1\n    optim/total_grad_norm=0.5\n",
        every="evaluated\n    eval/CrossEntropyLoss=9.0\n",
    ),
    "OLMo-core": lines("... INFO [step={i}/1500,epoch=1]\n    optim/LR=0.1\n    train/CE loss={x}\n    train/PPL=9\n"),
    "fairseq": lines(
        '2026-01-01 10:00 | INFO | train_inner | {{"epoch": 1, "update": 0.3, "loss": "{x}", "num_updates": "{i}"}}\n'
    ),
    "records within records": lines('{{"step": {i}, "train": {{"loss": {x}}}, "eval": null}}\n'),
    "torchtitan": lines("\x1b[32m[rank0]: step: {i:2d}  \x1b[33mloss: {x:7.4f}  memory:  0.5GiB  tps: 12,345\x1b[0m\n"),
    "this engine": lines(
        "step {i:>3}/40   5%  loss {x:.4f}  lr 6.00e-04  norm 0.31  12,345 tok/s  wait 0.1%  left 0:42\n"
    ),
    "litgpt": lines("Epoch 1 | iter {i} step {i} | loss train: {x:.3f}, val: n/a | iter time: 12.1 ms\n"),
}
WITH_VALIDATION = ("nanoGPT", "llm.c's main.log", "llm.c's console", "modded-nanogpt", "the Trainer")


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_console_log_of_each_program_is_read_whole(program: str, tmp_path: Path) -> None:
    (tmp_path / "console.log").write_text(PROGRAMS[program], newline="")
    log = read_log(tmp_path / "console.log")
    assert log.loss.tolist() == [float(f"{x:.3f}") if program == "litgpt" else x for x in LOSSES]
    assert log.step.tolist() == STEPS
    if program in WITH_VALIDATION:
        assert log.validation is not None and set(log.validation.loss) == {9.0}
    assert all("no step column" in note for note in log.notes)


def test_a_finished_runs_trainer_state_is_read_at_every_step(tmp_path: Path) -> None:
    """Its last row sums the run up under the name `train_loss`."""
    history = [{"epoch": 0.1, "loss": 4 - i / 3000, "learning_rate": 1e-4, "step": i + 1} for i in range(3000)]
    history[99:99] = [{"epoch": 0.1, "eval_loss": 3.9, "step": 100}]
    history.append({"epoch": 1.0, "step": 3000, "total_flos": 1e15, "train_loss": 3.2, "train_runtime": 100.0})
    state = {"best_metric": None, "eval_steps": 100, "save_steps": 500, "global_step": 3000, "log_history": history}
    (tmp_path / "trainer_state.json").write_text(json.dumps(state))
    log = read_log(tmp_path / "trainer_state.json")
    assert len(log) == 3000 and log.loss[0] == 4.0 and log.rate is not None and not log.notes
    assert (log.layout.eval_interval, log.layout.save_interval) == (100, 500)


SUMMARIES = {
    "a.csv": "step,train_loss,loss\n"
    + "".join(f"{i},,{x}\n" for i, x in zip(STEPS, LOSSES, strict=False))
    + "40,3.2,\n",
    "a.jsonl": "".join(json.dumps({"_step": i, "loss": x}) + "\n" for i, x in zip(STEPS, LOSSES, strict=False))
    + json.dumps({"_step": 40, "train/loss": 3.2}),
    "rates.csv": "step,loss,lr,learning_rate\n"
    + "".join(f"{i},{x},,{i}\n" for i, x in zip(STEPS, LOSSES, strict=False))
    + "40,3,5,\n",
}


@pytest.mark.parametrize("name", SUMMARIES)
def test_of_two_columns_of_one_meaning_the_fuller_counts(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(SUMMARIES[name])
    log = read_log(tmp_path / name)
    assert log.loss[:N].tolist() == LOSSES
    assert name != "rates.csv" or log.rate is None or log.rate[:N].tolist() == [float(i) for i in STEPS]


ODD_CHARACTERS = "\u2028\u2029\x85\x0b\x0c\x1c\x1d\x1e"


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "log.txt"])
def test_a_line_ends_where_a_line_ends_and_not_at_other_characters(name: str, tmp_path: Path) -> None:
    def row(i: int, x: float) -> str:
        return {
            "a.jsonl": json.dumps({"note": f"a{ODD_CHARACTERS}b", "step": i, "loss": x}, ensure_ascii=False),
            "a.csv": f"a{ODD_CHARACTERS}b,{i},{x}",
            "log.txt": f"note {ODD_CHARACTERS} step {i} | loss {x}",
        }[name]

    head = "note,step,loss\n" if name == "a.csv" else ""
    (tmp_path / name).write_text(
        head + "".join(f"{row(i, x)}\n" for i, x in zip(STEPS, LOSSES, strict=False)), newline=""
    )
    assert read_log(tmp_path / name).loss.tolist() == LOSSES


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_every_encoding_and_line_end_is_read(encoding: str, ends: str, tmp_path: Path) -> None:
    text = "step,loss\n" + "".join(f"{i},{x}\n" for i, x in zip(STEPS, LOSSES, strict=False))
    (tmp_path / "a.csv").write_bytes(text.replace("\n", ends).encode(encoding))
    assert read_log(tmp_path / "a.csv").loss.tolist() == LOSSES


def table(header: str, rows: Iterable[str]) -> str:
    return "\n".join([header, *rows]) + "\n"


NUMBERS = {
    "semicolons": table("step;loss", (f"{i};{x:.4f}".replace(".", ",") for i, x in zip(STEPS, LOSSES, strict=False))),
    "tabs": table("step\tloss", (f"{i}\t{x:.4f}".replace(".", ",") for i, x in zip(STEPS, LOSSES, strict=False))),
    "quotes": table(
        '"step","loss"', (f'"{i}","{x:.4f}"'.replace(".", ",") for i, x in zip(STEPS, LOSSES, strict=False))
    ),
    "blanks": table("step   loss", (f"{i:4d}   {x:.4f}" for i, x in zip(STEPS, LOSSES, strict=False))),
}


@pytest.mark.parametrize("form", NUMBERS)
def test_decimal_commas_and_blanks_are_read(form: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(NUMBERS[form])
    log = read_log(tmp_path / "a.csv")
    assert log.loss.tolist() == LOSSES and log.step.tolist() == STEPS


RUNS = {
    "two names": ("first", "second", "second - train/loss"),
    "one name twice": ("run", "run", "run - train/loss (2)"),
}


@pytest.mark.parametrize("case", RUNS)
def test_an_export_of_several_runs_says_which_was_taken_and_how_to_take_another(case: str, tmp_path: Path) -> None:
    one, two, other = RUNS[case]
    rows = (f'"{i}","{x}","9","{x + 1}","7"' for i, x in zip(STEPS, LOSSES, strict=False))
    head = f'"Step","{one} - train/loss","{one} - val/loss","{two} - train/loss","{two} - val/loss"'
    (tmp_path / "a.csv").write_text(table(head, rows))
    log = read_log(tmp_path / "a.csv")
    assert log.loss.tolist() == LOSSES
    assert log.validation is not None and set(log.validation.loss) == {9.0}
    assert len(log.notes) == 1 and repr(other) in log.notes[0] and "--column" in log.notes[0]
    second = read_log(tmp_path / "a.csv", column=other)
    assert second.loss.tolist() == [x + 1 for x in LOSSES] and not second.notes
    assert second.validation is not None and set(second.validation.loss) == {7.0}


def test_rows_that_another_run_logged_alone_are_no_faults(tmp_path: Path) -> None:
    rows = [f"{i},{x},{x}" for i, x in zip(STEPS, LOSSES, strict=False)] + [f"{i},,3.0" for i in range(N, 3 * N)]
    (tmp_path / "a.csv").write_text(table("Step,short - train/loss,long - train/loss", rows))
    log = read_log(tmp_path / "a.csv", column="short - train/loss")
    assert len(log) == N and not log.notes


def test_the_spacing_of_a_foreign_logs_evaluations_is_its_evaluation_interval(tmp_path: Path) -> None:
    rows = [f"{i},{x},{'3.9' if i % 5 == 0 else ''}" for i, x in zip(STEPS, LOSSES, strict=False)]
    (tmp_path / "a.csv").write_text(table("step,loss,val_loss", rows))
    assert read_log(tmp_path / "a.csv").layout.eval_interval == 5
