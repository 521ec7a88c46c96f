"""Bands: made of replicates, good for their own recipe, data and tokenizer only; and where a run stands beside one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from mygpt2.config import load_config, to_toml
from mygpt2.errors import UserError
from mygpt2.experiments import bands, standing
from mygpt2.experiments.bands import Band, make, means, parse, stretches_of, write
from mygpt2.experiments.importing import import_log
from mygpt2.experiments.standing import Standing
from mygpt2.run_dir import RunDir, RunWriter
from tests.experiments.planted import descent

STEPS, WARMUP, COUNT = 160, 10, 5
TEXT = "a" * 64


def trained(
    runs: Path, name: str, seed: int, shift: float = 0.0, since: int = 1, steps: int = STEPS, *, data: str = "d" * 64,
    settings: tuple[str, ...] = (), events: tuple[dict, ...] = (), precision: str = "float32",
) -> RunDir:  # fmt: skip
    """A run of `tiny` as a trainer leaves it: its own chance of 0.01 nats, 0.05 a step, `shift` nats from a step on."""
    config = load_config("tiny", None, [
        f"--data.seed={seed}", f"--model.seed={seed}", f"--train.steps={STEPS}", f"--schedule.warmup_steps={WARMUP}",
        *settings,
    ])  # fmt: skip
    dice = np.random.default_rng(seed)
    loss = descent(STEPS) + dice.normal(0, 0.01) + dice.normal(0, 0.05, STEPS)
    loss[since - 1 :] += shift
    run = RunDir.create(runs, name)
    with RunWriter(run, 1) as writer:
        writer.config(to_toml(config))
        writer.command(["train", "--preset", "tiny"])
        for event in events:
            writer.event(event["kind"], **{key: value for key, value in event.items() if key != "kind"})
        for step in range(1, steps + 1):
            writer.metrics(step=step, tokens=8192 * step, loss=float(loss[step - 1]), lr=1e-3, grad_norm=1.0)
        writer.event("eval", step=steps, loss=3.9 + seed / 1e4, token_sha256=TEXT, precision=precision)
        writer.finish("finished", 0, "finished")
    (run.trace_dir / "manifest.json").write_text(json.dumps({"fingerprint": data}))
    return run


@pytest.fixture(scope="module")
def band(tmp_path_factory) -> Band:
    runs = tmp_path_factory.mktemp("band")
    return make("tiny", [trained(runs, f"band.tiny.{k}", k) for k in range(1, COUNT + 1)])


def stands(run: RunDir, band: Band) -> Standing:
    found = standing.standing(run, [band])
    assert isinstance(found, Standing), found
    return found


def test_stretches_hold_every_step_after_the_warm_up_once():
    for steps, warmup in ((140, 10), (2000, 50), (5, 0), (11, 10)):
        found = stretches_of(steps, warmup)
        assert [s for a, b in found for s in range(a, b + 1)] == list(range(warmup + 1, steps + 1))
    assert len(stretches_of(140, 10)) < 40 and len(stretches_of(2000, 50)) < 80 and len(stretches_of(4, 10)) == 0


def test_a_stretch_that_is_not_whole_or_holds_no_number_has_no_mean():
    step, loss = np.arange(1, 11), np.arange(10.0)
    loss[7] = np.nan
    found = means(step, loss, np.array([[1, 4], [5, 8], [9, 12]]))
    assert found[0] == 1.5 and np.isnan(found[1:]).all()


def test_a_run_with_other_seeds_is_inside_and_says_what_may_differ(band, tmp_path):
    found = stands(trained(tmp_path, "r", 77, precision="bf16"), band)
    assert found.words == "inside the band" and found.causes == ()
    assert "5 runs of preset tiny that differ in their seeds" in found.figures and "gpt2:4096" in found.figures
    assert "precision (bf16 here, float32 there)" in found.differs and "number of ranks" in found.differs


def test_a_run_that_leaves_the_band_says_since_when_and_what_usually_does_that(band, tmp_path):
    jump = ({"kind": "resume", "step": 79, "changes": {}},)
    found = stands(trained(tmp_path, "r", 77, 0.3, 80, events=jump), band)
    assert found.where == "above" and 76 <= found.since <= 84, found.words
    assert "resumed at step 79" in found.causes[0] and "What usually does this" in found.causes[1]
    below = stands(trained(tmp_path, "b", 78, -0.3, 80), band)
    assert below.where == "below" and "changed code" in below.causes[0]


def test_a_run_that_came_back_is_inside_and_one_that_diverged_is_above(band, tmp_path):
    run = trained(tmp_path, "r", 77)
    lines = run.metrics_file.read_text().splitlines()
    records = [json.loads(line) for line in lines]
    for record in records[60:90]:
        record["loss"] += 1.0
    run.metrics_file.write_text("".join(json.dumps(record) + "\n" for record in records))
    assert stands(run, band).where == "inside"
    for record in records[100:]:
        record["loss"] = None
    run.metrics_file.write_text("".join(json.dumps(record) + "\n" for record in records))
    assert stands(run, band).where == "above"


def test_before_two_stretches_nothing_is_said(band, tmp_path):
    assert stands(trained(tmp_path, "r", 77, 3.0, steps=16), band).words == "band: too early to say"
    assert stands(trained(tmp_path, "s", 77, 3.0, steps=5), band).words == "band: too early to say"
    assert stands(trained(tmp_path, "t", 77, 3.0, steps=24), band).where == "above"


def test_of_normal_runs_few_are_called_outside_at_their_end_and_at_any_time(band):
    """300 bands of five and one more run each: at the end at most 2 % are outside two stretches in a row."""
    dice, stretches = np.random.default_rng(0), band.stretches
    wrong = 0
    for _ in range(300):
        every = descent(STEPS)[:, None] + dice.normal(0, 0.01, COUNT + 1) + dice.normal(0, 0.05, (STEPS, COUNT + 1))
        train = np.column_stack([means(np.arange(1, STEPS + 1), one, stretches) for one in every.T])
        low, high = Band("tiny", {}, "d", "", (), (), (), stretches, train[:, :COUNT]).limits()
        side = np.where(train[:, COUNT] > high, 1, np.where(train[:, COUNT] < low, -1, 0))
        wrong += standing._where(side, band)[0] != "inside"
    assert wrong <= 6, f"{wrong} of 300"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"settings": ("--optimizer.lr=0.01",)}, "no band: optimizer.lr is not as in the band of preset tiny"),
        ({"settings": ("--data.tokenizer=gpt2:2048",)}, "no band: data.tokenizer is not"),
        ({"settings": ("--model.n_layer=2", "--optimizer.lr=0.01")}, "model.n_layer, optimizer.lr are not"),
        ({"data": "e" * 64}, "its data is not that of the band of preset tiny, and the built-in text is made of"),
        ({"data": ""}, "does not say on which data"),
    ],
)
def test_no_band_is_good_for_other_settings_tokenizers_or_data(band, tmp_path, options, said):
    found = standing.standing(trained(tmp_path, "r", 77, **options), [band])
    assert isinstance(found, str) and said in found


def test_what_changes_no_weight_and_the_precision_is_free(band, tmp_path):
    free = ("--train.precision=fp32", "--checkpoint.interval=7", "--eval.interval=3", "--train.micro_batch=4")
    assert stands(trained(tmp_path, "r", 77, settings=free), band).where == "inside"


def test_other_recipes_ghosts_and_folders_without_a_band_are_told_nothing(band, tmp_path):
    far = ("--model.n_layer=2", "--optimizer.lr=0.01", "--optimizer.beta1=0.8", "--train.batch_tokens=16384")
    run = trained(tmp_path, "r", 77, settings=far)
    assert standing.standing(run, [band]) == "" and standing.standing(trained(tmp_path, "s", 78), []) == ""
    (tmp_path / "log.csv").write_text("step,loss\n1,4\n2,3\n")
    assert standing.standing(import_log(tmp_path / "log.csv", tmp_path, "g")[0], [band]) == ""


def test_replicates_that_do_not_belong_together_make_no_band(tmp_path):
    runs = [trained(tmp_path, f"r{k}", k) for k in range(3)]
    for name, options, said in (
        ("other", {"settings": ("--optimizer.lr=0.01",)}, "other settings"),
        ("data", {"data": "e" * 64}, "same data"),
        ("short", {"steps": 100}, "lacks steps"),
    ):
        with pytest.raises(UserError, match=said):
            make("tiny", [*runs, trained(tmp_path, name, 9, **options)])
    with pytest.raises(UserError, match="same seeds"):
        make("tiny", [*runs, trained(tmp_path, "again", 2)])
    with pytest.raises(UserError, match="3 to"):
        make("tiny", runs[:2])


def test_the_file_is_small_gives_the_band_back_and_damaged_ones_claim_nothing(band, tmp_path, monkeypatch):
    monkeypatch.setattr(bands, "FOLDER", tmp_path / "shipped")
    monkeypatch.setenv("MYGPT2_CACHE", str(tmp_path / "cache"))
    assert bands.bands() == []
    write(band, bands.here() / "tiny.json")
    (again,) = bands.bands()
    assert (bands.here() / "tiny.json").stat().st_size < 6000
    assert again.recipe == band.recipe and again.replicates == band.replicates and again.text == TEXT
    assert np.abs(again.train - band.train).max() < 1e-4 and again.stretches.tolist() == band.stretches.tolist()
    content = json.loads((bands.here() / "tiny.json").read_text())
    (tmp_path / "shipped").mkdir()
    for number, change in enumerate(({"train": [[1.0]]}, {"stretches": [[4, 2]]}, {"data": ""}, {"replicates": []})):
        with pytest.raises(ValueError, match="no band"):
            parse(json.dumps(content | change).encode())
        (tmp_path / "shipped" / f"{number}.json").write_text(json.dumps(content | change))
    (tmp_path / "shipped" / "cut.json").write_text('{"schema": 1, ')
    assert len(bands.bands()) == 1


def test_every_band_that_is_shipped_can_be_read_and_is_for_the_preset_as_it_is():
    for path in bands.FOLDER.glob("*.json"):
        shipped = parse(path.read_bytes())
        assert shipped.preset == path.stem and len(shipped.replicates) >= 5
        assert shipped.recipe == bands.plain_recipe(load_config(shipped.preset)), "train its replicates again"
