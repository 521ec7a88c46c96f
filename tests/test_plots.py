"""loss_plot.png: drawn from the run folder alone, whole at every moment, and never the end of a run."""

import errno
import subprocess
import sys

import numpy as np
import pytest

from mygpt2.format import short
from mygpt2.plots import draw_loss_plot, loss_figure, smooth, validation_points
from mygpt2.run_dir import RunDir, RunWriter, read_events, read_metrics

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def run(tmp_path):
    run = RunDir.create(tmp_path, "r")
    for attempt, first, last in ((1, 1, 120), (2, 101, 200)):
        with RunWriter(run, attempt) as writer:
            for step in range(first, last + 1):
                writer.metrics(step=step, tokens=step * 1000, loss=float("nan") if step == 50 else 10 / step**0.2)
                if step % 50 == 0:
                    writer.event("eval", step=step, loss=10 / step**0.2 + 0.01 * attempt)
    return run


def test_the_picture_is_a_png_and_replaces_the_old_one_in_one_step(run):
    run.plot_file.write_bytes(b"old")
    assert draw_loss_plot(run) == run.plot_file
    assert run.plot_file.read_bytes().startswith(PNG) and run.plot_file.stat().st_size > 10_000
    assert not list(run.path.glob(".*.tmp"))


def test_every_step_the_smoothed_curve_validation_and_what_was_overwritten_are_there(run):
    figure = loss_figure("r", read_metrics(run), validation_points(read_events(run, ["eval"])))
    (axes,) = figure.axes
    lines = {str(line.get_label()): np.asarray(line.get_xydata()) for line in axes.get_lines()}
    assert len(lines["training, every step"]) == len(lines["training, smoothed"]) == 199  # the NaN is left out
    assert lines["overwritten by a resume"][:, 0].tolist() == list(range(101, 121))
    assert lines["validation"][:, 0].tolist() == [50, 100, 150, 200]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert axes.get_xlabel() == "step" and [top.get_xlabel() for top in axes.child_axes] == ["tokens"]


@pytest.mark.parametrize("steps", [0, 1, 2, 9])
def test_a_run_with_few_or_no_steps(tmp_path, steps):
    run = RunDir.create(tmp_path, "short")
    with RunWriter(run, 1) as writer:
        for step in range(1, steps + 1):
            writer.metrics(step=step, tokens=step, loss=5.0)
    assert draw_loss_plot(run) == (run.plot_file if steps else None)
    assert run.plot_file.exists() == bool(steps)


def test_a_full_disk_costs_the_picture_only(run, monkeypatch):
    import mygpt2.plots as plots

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(plots, "replace_file", full)
    assert draw_loss_plot(run) is None


def test_smoothing_is_unbiased_and_does_not_lag(run):
    constant, ramp = np.full(1000, 3.5), np.linspace(5, 1, 1000)
    np.testing.assert_allclose(smooth(constant), constant)
    np.testing.assert_allclose(smooth(ramp)[:950], ramp[:950])
    noise = np.random.default_rng(0).normal(size=5000)
    assert smooth(noise)[1000:].std() < 0.15  # a window of 101 of independent values: 0.1
    assert len(smooth(np.empty(0))) == 0


def test_odd_events_are_left_out():
    evals: list[dict] = [{"step": 2, "loss": 3.0},
             {"step": 1, "loss": 4.0}, {"step": 2, "loss": 2.5}, {"step": 3, "loss": None},
             {"loss": 1.0}, {"step": 4, "loss": float("nan")}]  # fmt: skip
    steps, losses = validation_points(evals)
    assert steps.tolist() == [1, 2] and losses.tolist() == [4.0, 2.5]


@pytest.mark.parametrize("value, text", [(0, "0"), (950, "950"), (1500, "1.5k"), (2e6, "2M"), (1.5e9, "1.5B")])
def test_short_numbers(value, text):
    assert short(value) == text


def test_no_global_plotting_state_is_used():
    code = "import sys, mygpt2.plots; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
