"""What a person does to runs from the table: one act on one or on many, each told by itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mygpt2.errors import UserError
from mygpt2.format import file_size
from mygpt2.run_dir import moves
from mygpt2.run_dir.marks import check_group, set_group
from mygpt2.run_dir.mentions import needs
from mygpt2.run_dir.paths import NAME
from workbench.context import Context
from workbench.tabs.monitor import labels

MOST = 2000  # runs of one act
ACTS = ("rename", "delete", "restore", "empty", "archive", "unarchive", "group", "tag")


def change(context: Context, asked: Mapping[str, Any]) -> dict[str, Any]:
    """Does `asked["act"]` to `asked["runs"]` with `asked["value"]`.

    {"say": what was done, in a sentence, "done": [names], "failed": [[name, why]], "undo": what takes it back, or None,
    "renamed": {old: new}}. UserError where nothing could be tried at all.
    """
    context.changes()
    act, value = str(asked.get("act", "")), str(asked.get("value") or "")
    given = asked.get("runs")
    names = list(dict.fromkeys(str(name) for name in given)) if isinstance(given, list) else []
    if act not in ACTS:
        raise UserError(f"{act!r} cannot be done to a run; allowed: {', '.join(ACTS)}")
    if act == "empty":
        return _empty(context)
    if not names or len(names) > MOST:
        raise UserError(f"{len(names)} runs are ticked; tick 1 to {MOST:,}")
    return _ACTS[act](context, names, value)


def needed(context: Context, names: Any) -> dict[str, list[str]]:
    """By run, those whose settings name files of it and that are not to be deleted with it. Reads only."""
    chosen = (
        [name for name in names if isinstance(name, str) and NAME.fullmatch(name)] if isinstance(names, list) else []
    )
    by_run = needs(context.runs) if chosen else {}
    found = {name: [o for o in by_run.get(context.run(name).name, []) if o not in chosen] for name in chosen[:MOST]}
    return {name: others for name, others in found.items() if others}


def _each(names: list[str], do: Callable[[str], Any]) -> tuple[dict[str, Any], list[list[str]]]:
    """What came of each, and why some could not be done."""
    done: dict[str, Any] = {}
    failed = []
    for name in names:
        try:
            done[name] = do(name)
        except UserError as error:
            failed.append([name, str(error)])
    return done, failed


def _answer(
    said: str, done: Mapping[str, Any], failed: list[list[str]], undo: Mapping[str, Any] | None = None, **more: Any
) -> dict[str, Any]:
    return {"say": said if done else "", "done": list(done), "failed": failed, "undo": undo if done else None, **more}


def _rename(context: Context, names: list[str], value: str) -> dict[str, Any]:
    if len(names) != 1:
        raise UserError(f"{len(names)} runs are ticked; rename one at a time")
    old, new = names[0], value.strip()
    moves.rename(context.runs, context.run(old).name, new)
    undo = {"act": "rename", "runs": [new], "value": old}
    return _answer(f"{old} is now {new}", {old: new}, [], undo, renamed={old: new})


def _delete(context: Context, names: list[str], _: str) -> dict[str, Any]:
    done, failed = _each(names, lambda name: moves.delete(context.runs, context.run(name).name))
    undo = {"act": "restore", "runs": [gone.entry for gone in done.values()]}
    size = file_size(sum(gone.bytes for gone in done.values()))
    return _answer(f"{_runs(done)} in the trash, {size}", done, failed, undo)


def _restore(context: Context, entries: list[str], value: str) -> dict[str, Any]:
    if value and len(entries) > 1:
        raise UserError("one run at a time can be restored under another name")
    done, failed = _each(entries, lambda entry: moves.restore(context.runs, entry, value.strip() or None).name)
    undo = {"act": "delete", "runs": list(done.values())}
    return _answer(f"{_runs(dict.fromkeys(done.values()))} back", done, failed, undo)


def _empty(context: Context) -> dict[str, Any]:
    gone = moves.empty_trash(context.runs)
    size = file_size(sum(each.bytes for each in gone))
    said = f"{len(gone)} deleted {'run' if len(gone) == 1 else 'runs'} removed for good, {size}"
    return {"say": said, "done": [each.entry for each in gone], "failed": [], "undo": None}


def _archive(context: Context, names: list[str], _: str, archived: bool = True) -> dict[str, Any]:
    done, failed = _each(names, lambda name: moves.archive(context.runs, context.run(name).name, archived))
    undo = {"act": "unarchive" if archived else "archive", "runs": list(done)}
    return _answer(f"{_runs(done)} {'archived' if archived else 'no longer archived'}", done, failed, undo)


def _unarchive(context: Context, names: list[str], value: str) -> dict[str, Any]:
    return _archive(context, names, value, archived=False)


def _group(context: Context, names: list[str], value: str) -> dict[str, Any]:
    group = check_group(value)
    done, failed = _each(names, lambda name: set_group(context.run(name), group))
    return _answer(f"{_runs(done)} in {f'the group {group}' if group else 'no group of your own'}", done, failed)


def _tag(context: Context, names: list[str], value: str) -> dict[str, Any]:
    """Adds tags; with a minus before it a tag is taken away."""
    words = value.replace(",", " ").split()
    drop = {word[1:] for word in words if word.startswith("-")}
    add = labels.parse_tags(" ".join(word for word in words if not word.startswith("-")))
    if not add and not drop:
        raise UserError("no tag is given; type one or more, or -TAG to take one away")

    def one(name: str) -> bool:
        run = context.run(name)
        kept = [tag for tag in labels.read_labels(run).tags if tag not in drop]
        return labels.write_tags(run, " ".join(dict.fromkeys([*kept, *add])))

    done, failed = _each(names, one)
    return _answer(f"{_runs(done)} tagged {', '.join([*add, *(f'-{tag}' for tag in sorted(drop))])}", done, failed)


def _runs(done: Mapping[str, Any]) -> str:
    """The runs as the beginning of a sentence about what they are now."""
    return f"{next(iter(done))} is" if len(done) == 1 else f"{len(done)} runs are"


_ACTS: Mapping[str, Callable[[Context, list[str], str], dict[str, Any]]] = {
    "rename": _rename, "delete": _delete, "restore": _restore, "archive": _archive, "unarchive": _unarchive,
    "group": _group, "tag": _tag,
}  # fmt: skip
