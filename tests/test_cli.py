"""The command line's manners: quick help, one line per error that says what to do, the right code, nothing left."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mygpt2 import __main__ as cli
from mygpt2.cli import Help, Parser, guarded
from mygpt2.errors import EXIT_DEFECT, EXIT_TRY_AGAIN, EXIT_USAGE, TryAgain

ROOT = Path(__file__).parents[1]

# What is given, and what the error must name: the value, what is allowed, what to do.
BAD_CONFIGURATIONS = {
    "a count in words": ("--train.steps many", "many", "a whole number from 1", "for example"),
    "a fraction of a count": ("--train.steps 1.5", "1.5", "a whole number", "(steps)"),
    "no steps": ("--train.steps 0", "0", "from 1 to 1000000000", "for example"),
    "negative steps": ("--train.steps=-5", "-5", "from 1 to 1000000000", "for example"),
    "a count that is too large": ("--model.n_layer 500", "500", "from 1 to 200 (blocks)", "for example 12"),
    "no value": ("--train.steps", "--train.steps has no value", "a whole number", "for example 19073"),
    "not a number": ("--optimizer.lr nan", "nan", "above 0, at most 10", "for example 0.0006"),
    "infinity": ("--optimizer.lr inf", "inf", "above 0, at most 10", "for example"),
    "a rate of zero": ("--optimizer.lr 0", "lr 0", "above 0", "for example"),
    "dropout of everything": ("--model.dropout 1", "dropout 1", "below 1", "for example 0.0"),
    "a negative share": ("--data.validation_fraction -0.1", "-0.1", "from 0.0 to 0.5", "for example 0.01"),
    "yes for true": ("--data.token_cache yes", "yes", "true or false", "for example true"),
    "a word that is not a choice": ("--train.compile yes", "yes", "one of auto, true, false", "for example"),
    "a switch without a value": (
        "--data.token_cache",
        "--data.token_cache has no value",
        "true or false",
        "for example",
    ),
    "a number for a choice": ("--data.order 3", "3", "one of lanes, buffer, sequential", "for example"),
    "an unknown optimizer": ("--optimizer.name sgd", "sgd", "one of adamw, muon", "for example"),
    "an unknown schedule": ("--schedule.name step", "step", "cosine, linear", "for example"),
    "an unknown device": ("--train.device gpu", "gpu", "one of auto, cpu, cuda, mps", "for example"),
    "an unknown precision": ("--train.precision int8", "int8", "one of auto, bf16", "for example"),
    "text for a list": ("--sample.prompts The", "The", "a list of at most 32 texts", "for example ["),
    "an empty prompt": ("--sample.prompts ['']", "''", "a list", "for example"),
    "an empty source": ("--data.source=", "data.source", "text that is not empty", "for example"),
    "a broken profile range": ("--log.profile ten", "ten", "text like 10:12", "for example 10:12"),
    "a profile after the end": ("--log.profile 5:999999", "5:999999", "train.steps=140", "for example"),
    "a misspelt key": ("--train.step 3", "train.step", "steps, batch_tokens", "did you mean train.steps?"),
    "a misspelt section": (
        "--modle.n_head 3",
        "modle.n_head",
        "sections are model, data",
        "did you mean model.n_head?",
    ),
    "a key of another section": ("--train.lr 1", "train.lr", "[train] has", "did you mean optimizer.lr?"),
    "a key without a section": ("--lr 1", "--lr", "--section.key VALUE", "did you mean --optimizer.lr?"),
    "an option nobody has": ("--zzz", "--zzz", "--section.key VALUE", "--help"),
    "a stray word": ("gpt2", "gpt2", "--section.key VALUE", "--help"),
    "heads that do not divide": ("--model.n_head 7", "n_head=7", "model.n_embd=256", "nearest n_head: 4, 8"),
    "a batch that is not whole": ("--train.batch_tokens 8000", "8000", "not a multiple of", "nearest: 7936, 8192"),
    "a micro-batch that does not fit": ("--train.micro_batch 5", "8192", "5 x 256", "nearest: 7680, 8960"),
    "lanes that do not divide": ("--data.lanes 5", "data.lanes=5", "32 sequences", "nearest: 4, 8"),
    "a warm-up without an end": ("--schedule.warmup_steps 300", "warmup_steps=300", "0 to 139", "for example 14"),
    "an unknown preset": ("--preset gpt-2", "gpt-2", "allowed: tiny, small", "did you mean gpt2?"),
    "a file that is not there": ("--config absent.toml", "absent.toml", "No such file", "give a readable TOML file"),
    "a folder for a file": ("--config .", "--config .", "Is a directory", "give a readable TOML file"),
    "a file that is not TOML": ("--config broken.toml", "broken.toml", "not TOML", "write [section]"),
    "a file that is not text": ("--config binary.toml", "binary.toml", "not TOML", "write [section]"),
    "a file with a wrong type": ("--config typed.toml", "typed.toml: train.steps", "a whole number", "for example"),
    "a file with a wrong key": ("--config keyed.toml", "keyed.toml: train.stepz", "[train] has", "train.steps?"),
    "a file with a loose key": (
        "--config loose.toml",
        "loose.toml: steps",
        "sections are",
        "did you mean train.steps?",
    ),
    "a file with a wrong preset": ("--config based.toml", "huge", "allowed: tiny, small", "start from tiny"),
    "a value for a section": ("--config flat.toml", "flat.toml: train = 300", "is a section", "write [train]"),
    "a run name with a path": ("--run ../x", "../x", "A-Z", "for example"),
    "a run name that is empty": ("--run=", "''", "A-Z", "letter or digit"),
    "a run that is not there": ("--run absent --resume must", "absent", "an existing run", "--resume auto"),
    "an unknown way to resume": ("--resume perhaps", "perhaps", "auto, never, must", "--help"),
    "an option without its value": ("--preset", "--preset", "expected one argument", "--help"),
}

FILES = {
    "broken.toml": b"[train\nsteps = 3",
    "binary.toml": b"\x80\x02\xff\x00",
    "typed.toml": b'[train]\nsteps = "300"',
    "keyed.toml": b"[train]\nstepz = 300",
    "loose.toml": b"steps = 300",
    "based.toml": b'preset = "huge"',
    "flat.toml": b"train = 300",
}


@pytest.mark.parametrize("case", BAD_CONFIGURATIONS)
def test_a_bad_configuration_is_one_line_that_says_what_to_do(case: str, mygpt2: Callable, tmp_path: Path) -> None:
    words, *parts = BAD_CONFIGURATIONS[case]
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
    ended = mygpt2("train", *words.split())
    assert ended.code == EXIT_USAGE and ended.out == ""
    (line,) = ended.err.splitlines()
    assert line.startswith("error: ")
    for part in parts:
        assert part in line
    assert {path.name for path in tmp_path.iterdir()} == set(FILES), "nothing is left behind"


def test_every_problem_has_its_own_line(mygpt2: Callable) -> None:
    ended = mygpt2("train", "--preset", "tony", "--train.steps", "x", "--train.sead", "3", "--data.lanes", "7")
    assert ended.code == EXIT_USAGE
    lines = ended.err.splitlines()
    assert len(lines) == 4 and all(line.startswith("error: ") for line in lines)


def test_an_error_holds_no_line_break_of_the_value(mygpt2: Callable) -> None:
    assert len(mygpt2("train", "--train.steps", "a\nb\x1b[31m").err.splitlines()) == 1


@pytest.mark.parametrize(
    ("argv", "part"),
    [(["trian"], "did you mean train?"), (["zzz"], "allowed: train, sample"), (["--tarin"], "allowed: train, sample")],
)
def test_an_unknown_verb_names_the_nearest(argv: list[str], part: str, mygpt2: Callable) -> None:
    ended = mygpt2(*argv)
    assert ended.code == EXIT_USAGE and part in ended.err and len(ended.err.splitlines()) == 1


def test_no_verb_shows_the_verbs(mygpt2: Callable) -> None:
    ended = mygpt2()
    assert ended.code == EXIT_USAGE and all(verb in ended.err for verb in cli.VERBS)
    assert mygpt2("--help") == (0, ended.err, "")


def test_print_config_is_the_whole_configuration(mygpt2: Callable, tmp_path: Path) -> None:
    ended = mygpt2("train", "--preset", "gpt2", "--data.seed", "5", "--print-config")
    assert ended.code == 0 and "seed = 5" in ended.out
    (tmp_path / "again.toml").write_text(ended.out)
    assert mygpt2("train", "--config", "again.toml", "--print-config").out == ended.out


def test_dry_run_shows_size_length_and_batch(mygpt2: Callable, tmp_path: Path) -> None:
    ended = mygpt2("train", "--preset", "gpt2", "--dry-run")
    assert ended.code == 0, ended.err
    assert "124,439,808" in ended.out and "9,999,745,024 tokens" in ended.out and "512 sequences" in ended.out
    assert "2 ranks   2 x 32 forward passes x 8 sequences" in ended.out
    assert list(tmp_path.iterdir()) == []


def test_the_same_command_means_the_same_run(mygpt2: Callable) -> None:
    def name(*words: str) -> str:
        out = mygpt2("train", *words, "--dry-run").out
        return next(line.split()[1] for line in out.splitlines() if line.startswith("run "))

    assert name() == name("--preset", "tiny") == "runs/tiny"
    changed = name("--train.steps", "40")
    assert changed.startswith("runs/tiny-") and changed == name("--train.steps", "40") != name("--train.steps", "41")
    assert name("--run", "mine", "--runs", "elsewhere") == "elsewhere/mine"


def test_a_run_goes_on_with_its_own_configuration(mygpt2: Callable, tmp_path: Path) -> None:
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    own = mygpt2("train", "--preset", "small", "--model.seed", "9", "--print-config").out
    (tmp_path / "runs" / "mine" / "config.toml").write_text(own)
    assert mygpt2("train", "--run", "mine", "--print-config").out == own
    longer = mygpt2("train", "--run", "mine", "--train.steps", "2500", "--print-config").out
    assert longer == own.replace("steps = 2000 ", "steps = 2500 ")
    assert "n_layer = 4 " in mygpt2("train", "--run", "mine", "--preset", "tiny", "--print-config").out


def fail(error: BaseException) -> Callable[[], int]:
    def command() -> int:
        raise error

    return command


def test_every_way_to_end_has_its_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert guarded(lambda: None) == 0
    assert guarded(lambda: 85) == 85
    assert guarded(fail(KeyboardInterrupt())) == 130
    assert guarded(fail(TryAgain("the hub is out"))) == EXIT_TRY_AGAIN
    assert capsys.readouterr() == ("", "error: the hub is out\n")
    assert guarded(fail(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "runs/a"))) == EXIT_TRY_AGAIN
    assert capsys.readouterr().err == (
        "error: cannot write runs/a: No space left on device; free some space, then run the same command\n"
    )
    assert guarded(fail(ZeroDivisionError("a defect"))) == EXIT_DEFECT
    assert "Traceback" in capsys.readouterr().err


def test_a_path_that_is_too_long_is_said_by_every_verb(mygpt2: Callable, tmp_path: Path) -> None:
    long = str(tmp_path / ("x" * 300))
    for argv in (
        ["train", "--preset", "tiny", "--runs", long],
        ["export", "--model", long, "--to", str(tmp_path / "out")],
        ["ripples", long],
        ["data", "inspect", "--data.source", long],
    ):
        ended = mygpt2(*argv)
        assert ended.code == 2 and "is too long; allowed: names of 255 bytes" in ended.err, ended.err
        assert len(ended.err.splitlines()) == 1


def python(*args: str, **kwargs: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *args], cwd=ROOT, capture_output=True, text=True, timeout=60, **kwargs)  # type: ignore[call-overload,no-any-return]


def test_help_imports_nothing_heavy() -> None:
    """Half a second is kept by what is not imported: torch alone takes more. The verbs' help may use the schema."""
    heavy = "torch numpy pyarrow datasets gradio pandas matplotlib plotly httpx huggingface_hub tiktoken tokenizers"
    code = (
        "import sys; from mygpt2.__main__ import main; main(sys.argv[1:]);"
        f"print(*(set('{heavy} pydantic'.split()) & set(sys.modules)), file=sys.stderr)"
    )
    assert python("-c", code, "--help").stderr.split() == []
    assert python("-c", code, "train", "--help").stderr.split() == ["pydantic"]
    assert python("-c", code, "train", "--print-config").stderr.split() == ["pydantic"]


def test_a_process_ends_with_the_code_and_one_line() -> None:
    done = python("-m", "mygpt2", "train", "--train.steps", "many")
    assert (done.returncode, done.stdout) == (EXIT_USAGE, "") and done.stderr.startswith("error: --train.steps many")


def test_a_closed_pipe_is_no_error() -> None:
    done = subprocess.run(
        ["bash", "-c", f'set -o pipefail; "{sys.executable}" -m mygpt2 train --help | head -n 1'],
        cwd=ROOT, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["runs", "lst"], "there is no action 'lst'; allowed: list, show, step,"),
        (["runs", "lst"], "did you mean list?; see python -m mygpt2 runs --help"),
        (
            ["launch", "--to", "slrm", "--print"],
            "--to 'slrm' is not known; allowed: slurm, skypilot, kubernetes, kubeflow",
        ),
        (["certify", "x", "--recheck", "two"], "--recheck 'two': expected a whole number; see"),
        (["certify", "x", "--tolerance", "low"], "--tolerance 'low': expected a number; see"),
    ],
)
def test_a_word_that_argparse_refuses_is_told_as_any_other(words, said, capsys):
    assert cli.main(words) == EXIT_USAGE
    assert said in capsys.readouterr().err


TEXT = """One two three four five six seven eight nine ten.
And more of it.

  python -m mygpt2 judge tiny --variant.optimizer.lr 3e-3      an example
        A setting's help in words of its own, and some more of them.
        Its second line."""


def test_help_is_as_wide_as_the_terminal_and_examples_stay_as_they_are(monkeypatch):
    monkeypatch.setenv("COLUMNS", "42")
    told = Parser(prog="x", epilog=TEXT, formatter_class=Help).format_help().partition("One")
    lines = (told[1] + told[2]).splitlines()
    assert lines[:2] == ["One two three four five six seven eight", "nine ten. And more of it."]
    assert lines[3] == "  python -m mygpt2 judge tiny --variant.optimizer.lr 3e-3      an example"
    assert all(len(line) <= 42 and line.startswith(" " * 8) for line in lines[4:]) and len(lines) == 7
    monkeypatch.setenv("COLUMNS", "120")
    assert Parser(prog="x", epilog=TEXT, formatter_class=Help).format_help().endswith(f"{TEXT}\n")
