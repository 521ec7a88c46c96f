"""One evaluation from the command line: open, measure, say and write, on one rank or many."""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path
from typing import Any

import torch

from mygpt2.device import Precision, choose
from mygpt2.distributed import Place, World, choose_device
from mygpt2.errors import UserError
from mygpt2.evals import hellaswag, yardstick
from mygpt2.evals.itemfile import ItemFile, read_baseline
from mygpt2.evals.items import load_items
from mygpt2.evals.loss import LossResult, evaluate
from mygpt2.evals.report import hellaswag_words, text_words
from mygpt2.evals.scorer import GPTScorer
from mygpt2.evals.text import Text, open_text
from mygpt2.exchange.load import Loaded, load_model
from mygpt2.files import replace_json
from mygpt2.machine import cache_folder
from mygpt2.progress import Bar, progress_bar
from mygpt2.train.hardware import use_threads

SCHEMA = 1
TIMEOUT_S = 4 * 3600.0  # the others wait while rank 0 downloads


class Session:
    """The model of `--model` on this rank, and what is asked about it. The arguments are the verb's."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.cache_dir = cache_folder()
        place = Place.from_environment(os.environ)
        use_threads(place)
        self.device = _device(args.device, place)
        self.precision = _precision(args.precision, self.device)
        self.precision.apply()
        self.world = World(place, self.device, timeout_s=TIMEOUT_S)

    def close(self) -> None:
        self.world.close()

    def run(self) -> None:
        """Measures everything asked for. Rank 0 prints and writes the result."""
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
            _write(out, result)
            self._say(f"written to {out}")

    # The loss on a text

    def _text(self, loaded: Loaded, name: str) -> Text:
        with progress_bar("reading the text", "", self.world.lead) as advance:
            return open_text(
                name, loaded.tokenizer, cache_dir=self.cache_dir, model=self.args.model, runs=self.args.runs,
                text_column=self.args.text_column, progress=advance,
            )  # fmt: skip

    def _loss(self, scorer: GPTScorer, loaded: Loaded, text: Text) -> dict[str, Any]:
        measured = self._evaluate(scorer, text, "loss")
        quoted = text.quoted_beside(measured.window, loaded.tokenizer)
        if self.world.lead and yardstick.measurable(loaded.details):
            yardstick.keep(self.cache_dir, self.args.model, loaded.details, text.protocol, measured)
        beside = self._yardstick(text)
        self._say(text_words(text.protocol, measured, quoted, beside))
        return {
            "protocol": text.protocol, **measured.to_json(), "text": text.stream.origin,
            "quoted": [figure.to_json() for figure in quoted], "yardstick": beside,
        }  # fmt: skip

    def _evaluate(self, scorer: GPTScorer, text: Text, title: str) -> LossResult:
        window = text.window_for(scorer.block_size)
        with progress_bar(title, "targets", self.world.lead) as advance:
            done = 0
            share = -(-text.stream.targets // self.world.size)

            def progress(targets: int) -> None:
                nonlocal done
                done += targets
                advance(done, share)

            return evaluate(
                scorer, text.stream, window=window, ranks=self.world, batch=self.args.batch, progress=progress
            )

    def _yardstick(self, text: Text) -> dict[str, Any] | None:
        """The yardstick on this text: from the cache, or measured where it was asked for. None: not known."""
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
        self._say(hellaswag_words(found))
        return found

    def _score(self, scorer: GPTScorer, table: hellaswag.Table, file: ItemFile) -> dict[str, Any]:
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


def _device(name: str, place: Place) -> torch.device:
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there.get(name, True):
        allowed = ", ".join(["auto", "cpu", *(device for device, is_there in there.items() if is_there)])
        raise UserError(f"--device {name} is not there; allowed: {allowed}")
    return choose_device(name, place)


def _precision(name: str, device: torch.device) -> Precision:
    try:
        return choose(name, device)
    except UserError as error:  # it speaks of a run's setting
        raise UserError(str(error).replace("train.precision=", "--precision ")) from error


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


def _write(path: Path, result: dict[str, Any]) -> None:
    try:
        replace_json(path, result)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}; choose another file with --json") from error
