"""The public API, all of it: list, metrics, configuration, samples; launch and stop, only with the password."""

from __future__ import annotations

import difflib
from typing import Any, cast

import gradio as gr

from mygpt2.errors import UserError
from mygpt2.run_dir import MetricsReader, list_runs, read_records, state_of
from workbench import forms
from workbench.context import Context
from workbench.jobs import How
from workbench.train import draft as drafts

PUBLIC = ("list_runs", "metrics", "configuration", "samples", "launch", "stop")
MAX_ROWS = 5000


def publish(context: Context) -> None:
    """Adds the endpoints to the Blocks being built; everything else of the page is private."""

    def runs() -> list[dict[str, Any]]:
        """All runs: name, state, step, steps, tokens, loss, tokens_per_second, eta."""
        return _told(lambda: [_line(context, run.name) for run in list_runs(context.runs)])

    def metrics(run: str, cursor: int = 0, limit: int = 1000) -> dict[str, Any]:
        """Rows after step `cursor`, oldest first, at most `limit`; `cursor` of the answer asks for the rest."""
        return _told(lambda: _metrics(context, run, cursor, limit))

    def configuration(run: str) -> dict[str, Any]:
        """Every setting of a run, by section."""
        return _told(lambda: _configuration(context, run))

    def samples(run: str, since_step: int = 0) -> list[dict[str, Any]]:
        """Samples written during training, from a step on."""
        return _told(lambda: _samples(context, run, since_step))

    def launch(password: str, preset: str, run: str, settings: dict[str, Any], nproc: int = 1) -> dict[str, Any]:
        """Queues a run: a preset with settings such as {"train.steps": 100}. Needs the server's password."""
        return _told(lambda: _launch(context, password, preset, run, settings, nproc))

    def stop(password: str, run: str, how: str = "save") -> dict[str, Any]:
        """Stops a run: save, now or kill. Needs the server's password."""
        return _told(lambda: _stop(context, password, run, how))

    for name, function in zip(PUBLIC, (runs, metrics, configuration, samples, launch, stop), strict=True):
        gr.api(function, api_name=name, api_visibility="public", concurrency_limit=4)


def _told(answer: Any) -> Any:
    """A UserError reaches the client as its one line; anything else as a defect without its traceback."""
    try:
        return answer()
    except UserError as error:
        raise gr.Error(str(error), print_exception=False) from None


def _line(context: Context, name: str) -> dict[str, Any]:
    state = state_of(context.run(name))
    keys = ("step", "steps", "tokens", "loss", "tokens_per_second", "eta")
    return {"name": name, "state": state.state, **{key: state.status.get(key) for key in keys}}


def _metrics(context: Context, run: str, cursor: int, limit: int) -> dict[str, Any]:
    table = MetricsReader(context.run(run)).poll()
    wanted = (table["step"] > int(cursor)).nonzero()[0][: max(1, min(int(limit), MAX_ROWS))]
    columns = {key: values[wanted].tolist() for key, values in table.columns.items()}
    rows = [
        {key: None if value != value else value for key, value in zip(columns, row, strict=True)}
        for row in zip(*columns.values(), strict=True)
    ]
    return {"rows": rows, "cursor": rows[-1]["step"] if rows else int(cursor)}


def _configuration(context: Context, run: str) -> dict[str, Any]:
    import tomllib

    try:
        return tomllib.loads(context.run(run).config_file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"the settings of run {run!r} cannot be read: {error}") from None


def _samples(context: Context, run: str, since: int) -> list[dict[str, Any]]:
    found = read_records(context.run(run).samples_file)
    return [record for record in found if int(record.get("step") or 0) >= int(since)]


def _entrance(context: Context, password: str) -> None:
    context.changes()
    if not context.door.has_password:
        raise UserError("launch and stop need a password; start the workbench with --password-file FILE")
    if context.door.locked:
        raise UserError("too many wrong passwords; wait a minute")
    if not context.door.opens(str(password)):
        raise UserError("the password is wrong")


def _launch(
    context: Context, password: str, preset: str, run: str, settings: dict[str, Any], nproc: int
) -> dict[str, Any]:
    _entrance(context, password)
    known = forms.settings()
    if unknown := sorted(set(settings) - set(known)):
        near = difflib.get_close_matches(unknown[0], known, 1)
        hint = f"did you mean {near[0]}?" if near else "see python -m mygpt2 train --help"
        raise UserError(f"settings {', '.join(unknown)} are not known; {hint}")
    odd = [name for name, value in settings.items() if not isinstance(value, str | int | float | list | None)]
    if odd:
        raise UserError(f"settings {', '.join(odd)} are objects; give text, numbers, true or false, lists or null")
    values = {name: forms.text_of(known[name], value) for name, value in settings.items()}
    devices = drafts.first_devices(context)
    job = drafts.launch(context, drafts.Draft(preset, values, run, devices, str(nproc)), at_once=False)
    return {"job": job.id, "run": job.run, "command": list(job.spec.argv)}


def _stop(context: Context, password: str, run: str, how: str) -> dict[str, Any]:
    _entrance(context, password)
    if how not in ("save", "now", "kill"):
        raise UserError(f"how={how!r} is not known; allowed: save, now, kill")
    context.jobs.stop(context.run(run).name, cast("How", how))
    return {"run": run, "asked": how}
