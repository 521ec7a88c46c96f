"""The public API, all of it: runs, experiments and what is known of them; launch, judge and stop, with the password."""

from __future__ import annotations

import contextlib
import difflib
import json
from dataclasses import asdict
from typing import Any, cast

import gradio as gr

from mygpt2.config import from_toml as read_toml
from mygpt2.config.earlier import notices, renewed, renewed_names
from mygpt2.errors import UserError
from mygpt2.experiments.losses import losses
from mygpt2.experiments.step import report, spikes_of
from mygpt2.inside import SMALL_BYTES, read_inside
from mygpt2.records import tame
from mygpt2.run_dir import list_runs, read_records, state_of
from mygpt2.run_dir.family import origin_of
from mygpt2.run_dir.marks import is_archived
from mygpt2.run_dir.stop import How
from mygpt2.train import branching
from workbench import draft as drafts
from workbench import forms, judging
from workbench.context import Context
from workbench.paging import metrics_page

PUBLIC = (
    "list_runs", "metrics", "configuration", "samples", "spikes", "step", "losses", "experiments",
    "verdict", "launch", "branch", "judge", "stop",
)  # fmt: skip
MOST_GROUPS = 1000  # that `losses` tells one by one


def publish(context: Context) -> None:
    """Adds the endpoints to the Blocks being built; everything else of the page is private."""

    def runs() -> list[dict[str, Any]]:
        """All runs: name, state, whether it is archived, step, steps, tokens, loss, tokens_per_second, eta; of a branch
        also where it branched off."""
        return _told(lambda: _lines(context))

    def metrics(run: str, cursor: int = 0, limit: int = 1000) -> dict[str, Any]:
        """Rows after step `cursor`, oldest first, at most `limit`; `cursor` of the answer asks for the rest.

        After a resume the rows of the later attempt follow, from its first step on: they replace what was there.
        """
        return _told(lambda: _metrics(context, run, cursor, limit))

    def configuration(run: str) -> dict[str, Any]:
        """Every setting of a run, by section."""
        return _told(lambda: _configuration(context, run))

    def samples(run: str, since_step: int = 0) -> list[dict[str, Any]]:
        """Samples written during training, from a step on."""
        return _told(lambda: _samples(context, run, since_step))

    def spikes(run: str) -> list[dict[str, Any]]:
        """The steps of a run whose loss stands out: step, first, last, loss, expected, z (robust deviations)."""
        return _told(lambda: _spikes(context, run))

    def step(run: str, step: int) -> dict[str, Any]:
        """Why a step's loss stands out, or that it does not: a sentence, causes, rows worst first with documents."""
        return _told(lambda: _step(context, run, step))

    def losses(run: str, by: str = "source", first: int = 0, last: int | None = None) -> dict[str, Any]:
        """The loss of the rows a run was trained on in the steps first to last, by `source`, `domain`, or a column of
        their documents: tokens, share, loss, distance from all rows of the same steps with its error, change."""
        return _told(lambda: _losses(context, run, by, first, last))

    def launch(password: str, preset: str, run: str, settings: dict[str, Any], nproc: int = 1,
               request: gr.Request = None) -> dict[str, Any]:  # type: ignore[assignment]  # fmt: skip
        """Queues a run: a preset with settings such as {"train.steps": 100}. Needs the server's password."""
        return _told(lambda: _launch(context, password, preset, run, settings, nproc, _from(request)))

    def experiments() -> list[str]:
        """Names of the experiments over these runs; `verdict` tells of each."""
        return _told(lambda: judging.experiments(context))

    def verdict(name: str) -> dict[str, Any]:
        """What was found: of the task that `judge` answered with, or every look of an experiment, the latest last."""
        return _told(lambda: _plain(judging.verdict(context, str(name))))

    def judge(password: str, base: str, variant: str, settings: dict[str, Any], base_settings: dict[str, Any],
              replicates: int = 3, protocol: str = "run", source: str = "",
              request: gr.Request = None) -> dict[str, Any]:  # type: ignore[assignment]  # fmt: skip
        """Asks whether a variant is better: names of runs or presets, with settings such as {"optimizer.lr": 3e-3}.

        An empty variant is the base with its settings. Of mixtures the verdict is on `source` alone, if one is named.
        Missing runs are queued. Needs the server's password.
        """
        asked = judging.Asked(base, variant, base_settings, settings, replicates, protocol, source)
        return _told(lambda: _judge(context, password, asked, _from(request)))

    def stop(
        password: str,
        run: str,
        how: str = "save",
        request: gr.Request = None,  # type: ignore[assignment]
    ) -> dict[str, Any]:
        """Stops a run: save, now or kill. Needs the server's password."""
        return _told(lambda: _stop(context, password, run, how, _from(request)))

    def branch(password: str, place: str, run: str, settings: dict[str, Any], nproc: int = 1,
               request: gr.Request = None) -> dict[str, Any]:  # type: ignore[assignment]  # fmt: skip
        """Queues a branch of NAME@STEP under the name `run`, with these settings changed. Needs the password."""
        return _told(lambda: _branch(context, password, place, run, settings, nproc, _from(request)))

    functions = (
        runs, metrics, configuration, samples, spikes, step, losses, experiments, verdict, launch, branch, judge, stop,
    )  # fmt: skip
    for name, function in zip(PUBLIC, functions, strict=True):
        gr.api(function, api_name=name, api_visibility="public", concurrency_limit=4)


def _told(answer: Any) -> Any:
    """A UserError reaches the client as its one line; anything else as a defect without its traceback."""
    try:
        return answer()
    except UserError as error:
        raise gr.Error(str(error), print_exception=False) from None


def _from(request: gr.Request | None) -> str:
    return request.client.host if request is not None and request.client else ""


def _lines(context: Context) -> list[dict[str, Any]]:
    """A line for each run that the page may open: a link to another folder hides itself, and no other."""
    lines = []
    for name in (run.name for run in list_runs(context.runs)):
        with contextlib.suppress(UserError):
            lines.append(_line(context, name))
    return lines


def _line(context: Context, name: str) -> dict[str, Any]:
    run = context.run(name)
    state = state_of(run)
    keys = ("step", "steps", "tokens", "loss", "tokens_per_second", "eta")
    origin = origin_of(run)
    known = {"name": name, "state": state.state, "archived": is_archived(run)}
    known |= {"branch": origin.to_json()} if origin else {}
    return {**known, **{key: state.status.get(key) for key in keys}}


def _metrics(context: Context, run: str, cursor: int, limit: int) -> dict[str, Any]:
    try:
        return metrics_page(context.run(run), _whole("cursor", cursor), _whole("limit", limit))
    except OSError as error:
        raise UserError(f"the metrics of run {run!r} cannot be read: {error.strerror or error}") from None


def _configuration(context: Context, run: str) -> dict[str, Any]:
    found = context.run(run)
    try:
        return _plain(renewed(read_toml(read_inside(found.config_file, found.path, most=SMALL_BYTES))))
    except (OSError, ValueError) as error:
        raise UserError(f"the settings of run {run!r} cannot be read: {error}") from None


def _samples(context: Context, run: str, since: int) -> list[dict[str, Any]]:
    since = _whole("since_step", since)
    found = read_records(context.run(run).samples_file)
    return [_plain(record) for record in found if (record.get("step") or 0) >= since]


def _spikes(context: Context, run: str) -> list[dict[str, Any]]:
    return [dict(tame(asdict(one))) for one in spikes_of(context.run(run))]


def _step(context: Context, run: str, step: int) -> dict[str, Any]:
    return dict(_plain(tame(report(context.run(run), _whole("step", step)).to_json())))


def _losses(context: Context, run: str, by: str, first: int, last: int | None) -> dict[str, Any]:
    end, chosen = None if last is None else _whole("last", last), context.run(run)
    if by != "source":  # files are read that the run's folder names
        context.traced_files(chosen)
    return dict(_plain(tame(losses(chosen, str(by), _whole("first", first), end, top=MOST_GROUPS).to_json())))


def _whole(name: str, value: Any) -> int:
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        raise UserError(f"{name}={str(value)[:40]!r} is not a whole number; give one, 0 for the start") from None


def _plain(value: Any) -> Any:
    """A value from a run folder, plain: what looks like one of Gradio's files, which it would fetch, is text."""
    if isinstance(value, dict):
        named = isinstance(meta := value.get("meta"), dict) and "_type" in meta
        return json.dumps(value, default=str) if named else {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _entrance(context: Context, password: str, address: str) -> None:
    context.changes()
    if not context.door.has_password:
        raise UserError("launch, judge and stop need a password; start the workbench with --password-file FILE")
    if context.door.closed(address) > 0:
        raise UserError("too many wrong passwords; wait a minute")
    if not context.door.opens(str(password), address):
        raise UserError("the password is wrong")


def _launch(
    context: Context, password: str, preset: str, run: str, settings: dict[str, Any], nproc: int, address: str
) -> dict[str, Any]:
    _entrance(context, password, address)
    values, told = _values(settings), notices(settings)
    devices = drafts.first_devices(context)
    job = drafts.launch(context, drafts.Draft(preset, values, run, devices, str(nproc)), at_once=False)
    return {"job": job.id, "run": job.run, "command": list(job.spec.argv), "notices": told}


def _branch(
    context: Context, password: str, place: str, run: str, settings: dict[str, Any], nproc: int, address: str
) -> dict[str, Any]:
    _entrance(context, password, address)
    name, step = branching.place_of(str(place))
    at, before = branching.settings_of(context.runs, context.run(name).name, step)
    loaded = forms.from_config(before)
    draft = drafts.Draft(
        loaded.preset, {**loaded.values, **_values(settings)}, run, drafts.first_devices(context), str(nproc),
        branch=f"{name}@{at}",
    )  # fmt: skip
    job = drafts.launch(context, draft, at_once=False)
    origin = origin_of(context.run(job.run))
    assert origin is not None
    notes = [*notices(settings), *branching.notes(origin)]
    return {"job": job.id, "run": job.run, "branch": origin.to_json(), "command": list(job.spec.argv), "notices": notes}


def _values(settings: dict[str, Any]) -> dict[str, str]:
    """Settings as texts of the form. UserError for names and values that it does not have."""
    known, settings = forms.settings(), renewed_names(settings)
    if unknown := sorted(set(settings) - set(known)):
        near = difflib.get_close_matches(unknown[0], known, 1)
        hint = f"did you mean {near[0]}?" if near else "see python -m mygpt2 train --help"
        raise UserError(f"settings {', '.join(unknown)} are not known; {hint}")
    odd = [name for name, value in settings.items() if not isinstance(value, str | int | float | list | None)]
    if odd:
        raise UserError(f"settings {', '.join(odd)} are objects; give text, numbers, true or false, lists or null")
    return {name: forms.text_of(known[name], value) for name, value in settings.items()}


def _judge(context: Context, password: str, asked: judging.Asked, address: str) -> dict[str, Any]:
    _entrance(context, password, address)
    task, found = judging.ask(context, asked)
    return {
        "task": task.id, "experiment": found.experiment, "cost": str(found.cost()), "notices": list(found.notices),
        "command": list(task.argv),
    }  # fmt: skip


def _stop(context: Context, password: str, run: str, how: str, address: str) -> dict[str, Any]:
    _entrance(context, password, address)
    if how not in ("save", "now", "kill"):
        raise UserError(f"how={how!r} is not known; allowed: save, now, kill")
    context.jobs.stop(context.run(run).name, cast("How", how))
    return {"run": run, "asked": how}
