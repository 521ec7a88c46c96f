"""`sample`: continue prompts with a trained model, or talk to it line by line."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mygpt2.cli import EXIT_INTERRUPTED
from mygpt2.errors import EXIT_OK, UserError
from mygpt2.files import check_output, write_output
from mygpt2.terminal import printable, side_by_side, stopped_by_ctrl_c

if TYPE_CHECKING:
    from mygpt2.generate import Engine, Sampling, Token

HELLO = "Type a prompt and press Enter; Ctrl-C stops a sample, Ctrl-D leaves."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", metavar="RUN|CHECKPOINT_DIR|HF_DIR|gpt2", help="a run, a folder, a hub name")
    parser.add_argument("--compare", metavar=("A", "B"), nargs=2, help="two models side by side under the same seeds")
    parser.add_argument("--prompt", metavar="TEXT", action="append", help="what to continue; may be given again; "
                        "without one, prompts are read line by line")  # fmt: skip
    parser.add_argument("--max-new-tokens", metavar="N", type=int, default=100, help="length of a sample (100)")
    parser.add_argument("--temperature", metavar="T", type=float, default=0.8, help="0 is greedy (0.8)")
    parser.add_argument("--top-k", metavar="K", type=int, default=50, help="choose from the K likeliest; 0: all (50)")
    parser.add_argument("--top-p", metavar="P", type=float, default=1.0, help="choose from probability P; 1: all (1)")
    parser.add_argument("--min-p", metavar="P", type=float, default=0.0,
                        help="leave out ids below P times the likeliest one's probability (0)")  # fmt: skip
    parser.add_argument("--repetition-penalty", metavar="R", type=float, default=1.0,
                        help="make what was there before less likely; 1: no (1)")  # fmt: skip
    parser.add_argument("--stop", metavar="TEXT", action="append", default=[],
                        help="end a sample before this text; may be given again")  # fmt: skip
    parser.add_argument("--seed", metavar="S", type=int, default=1337, help="of the first sample; the next has S + 1")
    parser.add_argument("--num-samples", metavar="N", type=int, default=1, help="samples of each prompt (1)")
    parser.add_argument("--out", metavar="FILE", type=Path, help="also write prompts and texts to a text file")
    parser.add_argument("--json", metavar="OUT", type=Path, help="also write the samples to a JSON file")
    parser.add_argument("--runs", metavar="DIR", type=Path, default=Path("runs"), help="folder of runs (./runs)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto", help="where to compute")
    parser.add_argument("--weights", choices=("fp32", "bf16", "int8"), default="fp32",
                        help="how matrices are stored: smaller is faster, int8 costs a little (fp32)")  # fmt: skip
    parser.add_argument("--compile", action="store_true",
                        help="compile the slow parts: some seconds at first, then faster")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    check_output("--json", args.json)
    check_output("--out", args.out)
    if (args.model is None) == (args.compare is None):
        raise UserError("give either --model NAME or --compare A B; python -m mygpt2 runs list shows the runs")
    from mygpt2.generate import Sampling
    from mygpt2.generate.engine import check_request

    sampling = Sampling(args.temperature, args.top_k, args.top_p, args.min_p, args.repetition_penalty)
    check_request(args.max_new_tokens, args.num_samples, args.seed, args.stop)  # before gigabytes are read
    session = Session(args, sampling, [_engine(spec, args) for spec in args.compare or [args.model]])
    code = session.batch(args.prompt) if args.prompt else session.talk()
    if args.json is not None:
        write_output("--json", args.json, json.dumps(session.records, indent=1).encode() + b"\n")
    if args.out is not None:
        write_output("--out", args.out, "\n".join(map(_as_text, session.records)).encode("utf-8", "replace"))
    return code


class Session:
    """One or two models, the settings, and everything sampled so far."""

    def __init__(self, args: argparse.Namespace, sampling: Sampling, engines: list[Engine]) -> None:
        self._args, self._sampling, self._engines = args, sampling, engines
        self.records: list[dict[str, Any]] = []

    def batch(self, prompts: list[str]) -> int:
        """Samples every prompt. Ctrl-C ends it with what there is."""
        return EXIT_OK if self._sample(prompts) else EXIT_INTERRUPTED

    def talk(self) -> int:
        """Samples each line of standard input until it ends."""
        asks = sys.stdin.isatty()
        if asks:
            print(HELLO)
        while True:
            try:
                prompt = input("> " if asks else "")
            except EOFError:
                if asks:
                    print()
                return EXIT_OK
            except KeyboardInterrupt:
                print()
                continue
            self._sample([prompt])

    def _sample(self, prompts: list[str]) -> bool:
        """Samples and shows; False if Ctrl-C stopped it."""
        streams = len(prompts) == self._args.num_samples == len(self._engines) == 1
        results: list[list[dict[str, Any]]] = []
        with stopped_by_ctrl_c() as stop:
            for engine in self._engines:
                if streams:
                    print(printable(prompts[0]), end="", flush=True)
                began = time.perf_counter()
                results.append(
                    engine.generate(
                        prompts,
                        self._sampling,
                        max_new_tokens=self._args.max_new_tokens,
                        stop=self._args.stop,
                        seed=self._args.seed,
                        num_samples=self._args.num_samples,
                        on_token=_show if streams else None,
                        cancel=stop,
                    )
                )
                seconds = time.perf_counter() - began
                if streams:
                    print()
                self._summarise(results[-1], seconds, streams)
                if stop.is_set():
                    break
        self._keep(results)
        if not streams:
            self._print(results)
        return not stop.is_set()

    def _summarise(self, samples: list[dict[str, Any]], seconds: float, streams: bool) -> None:
        tokens = sum(len(sample["ids"]) for sample in samples)
        count = f"{len(samples)} sample{'s' * (len(samples) != 1)}, "
        how = f"seed {samples[0]['seed']}, {samples[0]['finish']}, " if streams else count
        print(f"--- {how}{tokens} tokens, {tokens / max(seconds, 1e-9):.1f} tokens/s")

    def _keep(self, results: list[list[dict[str, Any]]]) -> None:
        if self._args.compare is None:
            self.records += results[0]
        else:
            for spec, samples in zip(self._args.compare, results, strict=False):
                self.records += [{**sample, "model": spec} for sample in samples]

    def _print(self, results: list[list[dict[str, Any]]]) -> None:
        width = shutil.get_terminal_size((100, 24)).columns
        if len(results) == 2:
            for a, b in zip(*results, strict=True):
                heads = [f"{spec}: {_heading(s)}" for spec, s in zip(self._args.compare, (a, b), strict=True)]
                print(side_by_side(heads[0], heads[1], width))
                print(side_by_side(a["prompt"] + a["text"], b["prompt"] + b["text"], width))
        else:
            for sample in results[0]:
                print(f"--- {_heading(sample)}")
                print(printable(sample["prompt"] + sample["text"]))


def _show(token: Token) -> None:
    print(printable(token.text), end="", flush=True)


def _heading(sample: dict[str, Any]) -> str:
    return f"seed {sample['seed']}, {len(sample['ids'])} tokens, {sample['finish']}"


def _as_text(sample: dict[str, Any]) -> str:
    model = f"{sample['model']}: " if "model" in sample else ""
    return f"--- {model}{_heading(sample)}\n{sample['prompt']}{sample['text']}\n"


def _engine(spec: str, args: argparse.Namespace) -> Engine:
    """The model by that name, ready, its origin printed."""
    from mygpt2.device import check_device_option, choose_device
    from mygpt2.exchange.load import load_model
    from mygpt2.generate import Engine

    check_device_option(args.device)
    device = choose_device(args.device)
    loaded = load_model(spec, args.runs)
    print(f"model {loaded.words}")
    return Engine(loaded.model.to(device), loaded.tokenizer, weights=args.weights, compile=args.compile)
