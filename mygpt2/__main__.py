"""`python -m mygpt2 <verb>`: finds the verb and runs it.

Only the chosen verb's module is imported, and torch only inside its `run`, so that help and errors answer at once.
"""

from __future__ import annotations

if __name__ == "__main__":  # before anything takes time
    from mygpt2 import early

    early.prepare()

import argparse
import difflib
import importlib
import keyword
import sys
from collections.abc import Sequence

from mygpt2 import __version__
from mygpt2.cli import Help, Parser, guarded
from mygpt2.early import interrupt_by_exception
from mygpt2.errors import EXIT_OK, EXIT_USAGE, UserError

VERBS = {
    "train": "train a model, or go on with a run",
    "sample": "continue a prompt with a trained model",
    "eval": "measure a model: loss on a named text, HellaSwag",
    "export": "write a model as a folder for transformers, or as a GGUF file",
    "import": "turn a .pt or .bin file into a folder of safetensors",
    "certify": "write down what a run was, and prove it by training parts of it again",
    "data": "inspect, fetch or prepare a data source",
    "ripples": "find periodic parts of a training loss, and where they come from",
    "plan": "what a run will take: memory, disk, time",
    "judge": "is a variant better than a base? keep, drop or undecided, and what would decide",
    "sweep": "which value of a setting is best, for a fraction of the full grid's compute",
    "ladder": "several sizes and budgets, the law through them, a forecast of the next size",
    "launch": "hand a run to a cluster: SLURM, SkyPilot, Kubernetes, Kubeflow",
    "runs": "list, show, stop, verify, branch, rename, archive or delete runs",
    "tokenizer": "train, inspect or compare tokenizers",
    "doctor": "check this machine and installation",
}

USAGE = f"""usage: python -m mygpt2 VERB [options]

{chr(10).join(f"  {name:<10}{help}" for name, help in VERBS.items())}

python -m mygpt2 VERB --help shows the options of a verb."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a verb and return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    return guarded(lambda: _dispatch(words))


def _dispatch(argv: list[str]) -> int:
    if not argv:
        print(USAGE, file=sys.stderr)
        return EXIT_USAGE
    name = argv[0]
    if name in ("-h", "--help", "help"):
        print(USAGE)
        return EXIT_OK
    if name == "--version":
        print(f"mygpt2 {__version__}")
        return EXIT_OK
    if name not in VERBS:
        close = difflib.get_close_matches(name, VERBS, n=1)
        hint = f"did you mean {close[0]}?" if close else "see python -m mygpt2 --help"
        raise UserError(f"there is no verb {name!r}; allowed: {', '.join(VERBS)}; {hint}")
    return _run_verb(name, argv)


def _run_verb(name: str, argv: list[str]) -> int:
    module = f"{name}_" if keyword.iskeyword(name) else name  # `import` cannot be a module's name
    verb = importlib.import_module(f"mygpt2.verbs.{module}")
    parser = Parser(
        prog=f"python -m mygpt2 {name}",
        description=f"{VERBS[name][0].upper()}{VERBS[name][1:]}.",
        formatter_class=Help,
        allow_abbrev=False,
    )
    verb.add_arguments(parser)
    args, rest = parser.parse_known_args(argv[1:])
    args.argv = argv
    if name != "train":  # that one has its own handlers, once there is something to save
        interrupt_by_exception()
    takes = getattr(verb, "TAKES_SETTINGS", False)  # or the actions that do
    if takes is True or (takes and args.action in takes):
        args.settings = rest
    elif rest:
        raise UserError(_unknown_option(rest[0], parser))
    return int(verb.run(args) or EXIT_OK)


def _unknown_option(word: str, parser: argparse.ArgumentParser) -> str:
    known = [option for action in parser._actions for option in action.option_strings]
    close = difflib.get_close_matches(word.partition("=")[0], known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"see {parser.prog} --help"
    return f"{word!r} is not an option here; {hint}"


if __name__ == "__main__":
    sys.exit(main())
