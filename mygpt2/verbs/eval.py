"""`eval`: the loss of a model on a named text, and HellaSwag, with the error of each number."""

from __future__ import annotations

import argparse
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mygpt2.errors import EXIT_STOPPED, UserError
from mygpt2.failures import PeerFailed
from mygpt2.files import check_output, encode_json, write_output
from mygpt2.machine import cache_folder
from mygpt2.progress import Bar, progress_bar
from mygpt2.terminal import interruptible

if TYPE_CHECKING:  # torch is loaded when all that can be said without it has been said
    from mygpt2.evals.hellaswag import Table
    from mygpt2.evals.items import ItemFile
    from mygpt2.evals.loss import GPTScorer, LossResult
    from mygpt2.evals.text import Text
    from mygpt2.exchange.load import Loaded

SCHEMA = 1
TIMEOUT_S = 4 * 3600.0  # the others wait while rank 0 downloads

EXAMPLES = """
protocols (texts):
  edu-seed      first 12,000 documents of FineWeb-Edu sample-100BT 013_00000.parquet, end-of-text appended
  edu-bn        first 10,485,760 targets of FineWeb-Edu sample-10BT, end-of-text prepended
  fineweb-10m   first 10,485,760 targets of the published FineWeb validation shard
  run           the held-out set of the run that --model is of; run:NAME, of another run
  runs:A,B      the held-out documents of every source that run A or run B trains on, each source for itself
  PATH          a file or folder of parquet, jsonl, txt, or tokens in .bin files

Under torchrun the work is shared among the ranks; the result is the same.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLES
    parser.add_argument("--model", metavar="RUN|CHECKPOINT_DIR|HF_DIR|gpt2", required=True, help="what to evaluate")
    parser.add_argument("--protocol", metavar="NAME|PATH", help="the text whose loss is measured, see below")
    parser.add_argument(
        "--hellaswag", metavar="PATH|hub", help="also HellaSwag: a jsonl, parquet or Arrow file, or hub"
    )
    parser.add_argument("--baseline", metavar="FILE", type=Path, help="another model's .items.jsonl: a paired test")
    parser.add_argument(
        "--yardstick", metavar="MODEL", nargs="?", const="gpt2", help="measure MODEL (gpt2) on the text too, once"
    )
    parser.add_argument(
        "--json", metavar="OUT", type=Path, help="where the result goes; a run's is in its evals/ without"
    )
    parser.add_argument("--batch", metavar="N", type=int, help="windows per forward pass; does not change the result")
    parser.add_argument("--limit", metavar="N", type=int, help="N items of HellaSwag, spread evenly, instead of all")
    parser.add_argument(
        "--precision", choices=("fp32", "tf32", "bf16", "fp16"), default="fp32", help="of the passes (fp32)"
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto", help="where to compute")
    parser.add_argument(
        "--text-column", metavar="NAME", default="text", help="column or key of a PATH's documents (text)"
    )
    parser.add_argument("--runs", metavar="DIR", type=Path, default=Path("runs"), help="folder of runs (./runs)")


def run(args: argparse.Namespace) -> int:
    _check(args)
    with interruptible():
        session = Session(args)
        try:
            with session.world.one_fate():
                session.run()
        except PeerFailed as problem:
            if session.world.lead:
                print(f"error: {problem}", file=sys.stderr)
            return problem.exit_code
        except UserError as problem:
            if session.world.lead:
                raise
            return problem.exit_code  # rank 0 says why
        except KeyboardInterrupt:
            kept = (
                "; HellaSwag items scored so far are kept, the same command goes on from there"
                if args.hellaswag
                else ""
            )
            print(f"\nstopped{kept}", flush=True)
            return EXIT_STOPPED
        finally:
            session.close()
    return 0


def _check(args: argparse.Namespace) -> None:
    """What can be said before torch is loaded and gigabytes are read."""
    if args.protocol is None and args.hellaswag is None:
        raise UserError("nothing to evaluate; give --protocol NAME|PATH, --hellaswag PATH|hub, or both")
    for option, value in (("--batch", args.batch), ("--limit", args.limit)):
        if value is not None and value < 1:
            raise UserError(f"{option} {value} is not allowed; use 1 or more, or leave it out")
    check_output("--json", args.json)
    for option in ("baseline", "limit"):
        if getattr(args, option) is not None and args.hellaswag is None:
            raise UserError(f"--{option} belongs to HellaSwag; add --hellaswag PATH|hub or leave it out")
    if args.yardstick is not None and args.protocol is None:
        raise UserError("--yardstick is measured on a text; add --protocol NAME|PATH or leave it out")
    if args.baseline is not None and not args.baseline.is_file():
        raise UserError(
            f"--baseline {args.baseline} does not exist; give the .items.jsonl that eval wrote for the other model"
        )


class Session:
    """The model of `--model` on this rank, and what is asked about it. The arguments are the verb's."""

    def __init__(self, args: argparse.Namespace) -> None:

        from mygpt2.board import RankInfo
        from mygpt2.device import check_device_option, choose, choose_device, use_threads
        from mygpt2.distributed import World

        self.args = args
        self.cache_dir = cache_folder()
        info = RankInfo.from_environment(os.environ)
        use_threads(info)
        check_device_option(args.device)
        self.device = choose_device(args.device, info)
        self.precision = choose(args.precision, self.device, "--precision ")
        self.precision.apply()
        self.world = World(info, self.device, timeout_s=TIMEOUT_S)

    def close(self) -> None:
        self.world.close()

    def run(self) -> None:
        """Measures everything asked for. Rank 0 prints and writes the result."""
        from mygpt2.evals.loss import GPTScorer
        from mygpt2.exchange.load import load_model

        args = self.args
        loaded = self.world.lead_first(lambda: load_model(args.model, args.runs))
        scorer = GPTScorer(loaded.model.to(self.device), self.precision)
        self._say(f"model {loaded.words}, {self.precision.name} on {self.world.size} x {self.device}")
        result: dict[str, Any] = {"schema": SCHEMA, "model": loaded.name, "details": loaded.details}
        result |= {"precision": self.precision.name, "device": str(self.device), "ranks": self.world.size}
        out = args.json
        if args.protocol is not None:
            text = self.world.lead_first(lambda: self._text(loaded, args.protocol))
            result |= self._loss(scorer, loaded, text)
            out = out or _in_run(loaded, text.protocol, result["token_sha256"])
        if args.hellaswag is not None:
            out = out or _in_run(loaded, "hellaswag", "")
            result["hellaswag"] = self._hellaswag(scorer, loaded, out)
        if out is not None and self.world.lead:
            write_output("--json", out, encode_json(result))
            self._say(f"written to {out}")

    # The loss on a text

    def _text(self, loaded: Loaded, name: str) -> Text:
        from mygpt2.evals.text import open_text

        with progress_bar("reading the text", "", self.world.lead) as advance:
            return open_text(
                name, loaded.tokenizer, cache_dir=self.cache_dir, model=self.args.model, runs=self.args.runs,
                text_column=self.args.text_column, progress=advance,
            )  # fmt: skip

    def _loss(self, scorer: GPTScorer, loaded: Loaded, text: Text) -> dict[str, Any]:
        from mygpt2.evals import yardstick
        from mygpt2.evals.loss import text_words

        measured = self._evaluate(scorer, text, "loss")
        quoted = text.quoted_beside(measured.window, loaded.tokenizer)
        if self.world.lead and yardstick.measurable(loaded.details):
            yardstick.keep(self.cache_dir, self.args.model, loaded.details, text.protocol, measured)
        beside = self._yardstick(text)
        self._say(text_words(text.protocol, measured, quoted, beside))
        return {
            "protocol": text.protocol, **measured.to_json(), "text": text.stream.origin,
            "quoted": [figure.to_json() for figure in quoted], "yardstick": beside,
            "by_document": measured.by_document(),
        }  # fmt: skip

    def _evaluate(self, scorer: GPTScorer, text: Text, title: str) -> LossResult:
        from mygpt2.evals.loss import evaluate

        window, share = text.window_for(scorer.block_size), -(-text.stream.targets // self.world.size)
        with Bar(title, "targets", share, show=self.world.lead) as bar:
            return evaluate(
                scorer, text.stream, window=window, ranks=self.world, batch=self.args.batch, progress=bar.add
            )

    def _yardstick(self, text: Text) -> dict[str, Any] | None:
        """The yardstick on this text: from the cache, or measured where it was asked for. None: not known."""
        import torch

        from mygpt2.evals import yardstick
        from mygpt2.evals.loss import GPTScorer
        from mygpt2.exchange.load import load_model

        spec = self.args.yardstick or "gpt2"
        found = yardstick.find(self.cache_dir, spec, text.stream.sha256)
        known = int(self.world.sum([int(found is not None)], torch.int64)[0]) == self.world.size
        if known or self.args.yardstick is None:
            return found
        other = self.world.lead_first(lambda: load_model(spec, self.args.runs))
        if not yardstick.measurable(other.details):
            raise UserError(
                f"--yardstick {spec} is a run, which changes; give gpt2, another published model or a folder"
            )
        own = self.world.lead_first(lambda: self._text(other, text.protocol.removeprefix("local:")))
        if own.stream.sha256 != text.stream.sha256:
            raise UserError(
                f"--yardstick {spec} has other tokens of this text than the model, and losses per token of the two do "
                "not compare; evaluate it by itself and compare bits per byte"
            )
        measured = self._evaluate(GPTScorer(other.model.to(self.device), self.precision), own, spec)
        if self.world.lead:
            yardstick.keep(self.cache_dir, spec, other.details, text.protocol, measured)
        self.world.barrier()
        return yardstick.find(self.cache_dir, spec, text.stream.sha256)

    # HellaSwag

    def _hellaswag(self, scorer: GPTScorer, loaded: Loaded, out: Path | None) -> dict[str, Any]:
        from mygpt2.evals import hellaswag
        from mygpt2.evals.items import ItemFile, load_items, read_baseline

        args = self.args

        def load() -> list[Any]:
            with progress_bar("fetching HellaSwag", "B", self.world.lead) as advance:
                return load_items(args.hellaswag, self.cache_dir, args.limit, advance)

        table = hellaswag.tabulate(self.world.lead_first(load), loaded.tokenizer, scorer.block_size)
        baseline = read_baseline(args.baseline, table.sha256, len(table)) if args.baseline else None
        head = hellaswag.header(table, scorer, loaded.tokenizer, loaded.name, loaded.details["weights_sha256"])
        path = self._items_path(out, head)
        file = ItemFile(path, head, self.world.rank)
        if file.known:
            self._say(f"going on with {len(file.known):,} of {len(table):,} items scored before")
        try:
            nll = self._score(scorer, table, file)
        finally:
            file.close()
        if self.world.lead:
            file.finish(hellaswag.lines(table, nll))
        found = hellaswag.summary(table, nll) | {"items": str(path)}
        if baseline:
            found["baseline"] = {"model": baseline[0].get("model"), "file": str(args.baseline)}
            found["against_baseline"] = hellaswag.against(table, nll, baseline[1])
        self._say(hellaswag.words(found))
        return found

    def _score(self, scorer: GPTScorer, table: Table, file: ItemFile) -> dict[str, Any]:
        from mygpt2.evals import hellaswag

        tokens = {} if self.args.batch is None else {"tokens_at_once": self.args.batch * scorer.block_size}
        share = -(-len(table) // self.world.size)
        with Bar("HellaSwag", "items", share, show=self.world.lead, smoothing=0.05, leave=True) as bar:
            return hellaswag.score(scorer, table, ranks=self.world, file=file, progress=bar.add, **tokens)

    def _items_path(self, out: Path | None, head: dict[str, Any]) -> Path:
        """Beside the result; without one, in the cache, so that this too can be interrupted."""
        if out is not None:
            return out.with_name(f"{out.name.removesuffix('.json')}.items.jsonl")
        folder = self.cache_dir / "evals"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"hellaswag-{head['weights_sha256'][:16]}-{head['items_sha256'][:16]}.items.jsonl"

    def _say(self, text: str) -> None:
        if self.world.lead:
            print(text, flush=True)


def _in_run(loaded: Loaded, protocol: str, token_sha256: str) -> Path | None:
    """Where the result of a run's checkpoint belongs: in the run's own folder."""
    run, step = loaded.details.get("run"), loaded.details.get("step")
    if run is None or step is None:
        return None
    name = protocol
    if not re.fullmatch(r"[\w-]+", protocol):  # a path
        name = f"{re.sub(r'[^A-Za-z0-9._-]+', '-', protocol)[-40:].strip('-.')}-{token_sha256[:8]}"
    folder = Path(run) / "evals"
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror or error}; give --json OUT") from error
    return folder / f"step-{step:08d}-{name}.json"
