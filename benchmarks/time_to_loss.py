"""Wall time to nanoGPT's best validation loss: same documents, same held-out set, same parameters, same cores.

    python benchmarks/time_to_loss.py --nanogpt PATH [--minutes 20] [--seeds 3] [--lrs 6e-4 1e-3 2e-3] [--share 0.25]

nanoGPT trains for --minutes with each learning rate, in float32 and eagerly, as it runs on a CPU, with its own model,
optimizer, random crops and cosine schedule fitted to the time; its best validation loss is the goal. Then
`python -m mygpt2 train` runs once per seed, for --share of those minutes. Time spent on validation is left out for
both; our time counts from the start of the process, imports, compilation and the first blocks included. The first seed
compiles from nothing, the others find what it compiled, as a second run on a machine does.

Mark: the goal in at most 1/4 of nanoGPT's time (aim: 1/8), for every seed.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LAYERS, HEADS, WIDTH, CONTEXT, VOCABULARY = 6, 6, 384, 256, 8192
ROWS = 16  # nanoGPT's sequences per step


def prepare(folder: Path) -> None:
    """train.npy (documents in file order, end-of-text after each) and val.npy, as the product splits them."""
    import numpy as np

    from mygpt2.config.data import DataConfig
    from mygpt2.data.heldout import held_out
    from mygpt2.data.sources.resolve import open_reader, resolve
    from mygpt2.data.validation import validation_set
    from mygpt2.machine import cache_folder
    from mygpt2.tokenizer import load_tokenizer

    data = DataConfig(source="pydocs", tokenizer=f"gpt2:{VOCABULARY}", validation_tokens=65_536)
    tokenizer = load_tokenizer(data.tokenizer)
    caches = cache_folder()
    manifest = resolve(data.source, data, cache_dir=caches)
    reader = open_reader(manifest, cache_dir=caches, eot_id=tokenizer.eot_id)
    parts = []
    for block in range(len(manifest)):
        texts = [t for t in reader.read(block) if t and not held_out(t, data.validation_fraction)]
        for ids in tokenizer.encode_batch(texts):
            parts += [ids, np.array([tokenizer.eot_id], dtype=ids.dtype)]
    np.save(folder / "train.npy", np.concatenate(parts))
    np.save(folder / "val.npy", validation_set(manifest, reader, tokenizer, data, caches).tokens)


def train_nanogpt(path: str, folder: Path, minutes: float, lr: float) -> dict:
    """nanoGPT's loop for a fixed time; its best validation loss over the whole held-out set."""
    import numpy as np
    import torch

    sys.path.insert(0, path)
    from model import GPT, GPTConfig

    from mygpt2.data.validation import windows

    torch.manual_seed(1337)
    tokens = torch.from_numpy(np.load(folder / "train.npy").astype(np.int64))
    val = [torch.from_numpy(a) for a in windows(np.load(folder / "val.npy"), CONTEXT)]
    model = GPT(GPTConfig(n_layer=LAYERS, n_head=HEADS, n_embd=WIDTH, block_size=CONTEXT, vocab_size=VOCABULARY,
                          dropout=0.0, bias=True))  # fmt: skip
    optimizer = model.configure_optimizers(0.1, lr, (0.9, 0.95), "cpu")
    budget, used, step, curve, next_eval = 60 * minutes, 0.0, 0, [], 60.0

    def validate() -> float:
        model.eval()
        nll = count = 0.0
        with torch.no_grad():
            for i in range(0, len(val[0]), ROWS):
                logits, _ = model(val[0][i : i + ROWS], val[1][i : i + ROWS].clamp(min=0))
                flat = val[1][i : i + ROWS].flatten()
                nll += float(torch.nn.functional.cross_entropy(
                    logits.flatten(0, 1), flat, ignore_index=-100, reduction="sum"))  # fmt: skip
                count += float((flat != -100).sum())
        model.train()
        return nll / count

    while used < budget:
        began = time.perf_counter()
        # Warm-up over the first 3 % of the time, then cosine to a tenth: nanoGPT's schedule, by time instead of steps.
        done = used / budget
        falling = 0.1 + 0.45 * (1 + math.cos(math.pi * (done - 0.03) / 0.97))
        rate = min(1.0, (done + 1e-3) / 0.03) if done < 0.03 else falling
        for group in optimizer.param_groups:
            group["lr"] = lr * rate
        starts = torch.randint(len(tokens) - CONTEXT - 1, (ROWS,))
        x = torch.stack([tokens[s : s + CONTEXT] for s in starts])
        y = torch.stack([tokens[s + 1 : s + CONTEXT + 1] for s in starts])
        _, loss = model(x, y)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        used += time.perf_counter() - began
        step += 1
        if used >= next_eval or used >= budget:
            curve.append((used, validate()))
            next_eval = used + max(60.0, budget / 20)
            print(f"nanoGPT lr {lr:g}: {used / 60:.1f} of {minutes:g} min, step {step}, validation {curve[-1][1]:.4f}",
                  file=sys.stderr, flush=True)  # fmt: skip
    return {"lr": lr, "best": min(loss for _, loss in curve), "steps": step, "curve": curve}


def train_ours(
    folder: Path, minutes: float, seed: int, goal: float, extra: list[str], speed: float, batch_tokens: int
) -> dict:
    """One run of the product; the training time at its first validation at or below the goal."""
    steps = max(20, int(60 * minutes * speed / batch_tokens))
    name = f"seed-{seed}"
    settings = {
        "model.n_layer": LAYERS, "model.n_head": HEADS, "model.n_embd": WIDTH, "model.block_size": CONTEXT,
        "data.tokenizer": f"gpt2:{VOCABULARY}", "data.validation_tokens": 65_536, "train.batch_tokens": batch_tokens,
        "train.micro_batch": ROWS, "train.steps": steps, "data.seed": seed, "model.seed": seed, "train.compile": "true",
        "optimizer.name": "muon", "optimizer.lr": 6e-3, "optimizer.muon_lr": 0.02,
        "optimizer.muon_momentum": 0.85,
        "schedule.name": "trapezoid", "schedule.warmup_steps": 5, "schedule.decay_share": 0.6,
        "schedule.min_lr_ratio": 0.0, "eval.interval": max(5, steps // 20), "sample.interval": 0,
        "checkpoint.interval": 10**6, "log.plot_interval": 0,
    }  # fmt: skip
    words = [sys.executable, "-m", "mygpt2", "train", "--preset", "tiny", "--runs", str(folder / "runs"), "--run", name]
    for key, value in settings.items():
        words += [f"--{key}", str(value)]
    compiled = {"TORCHINDUCTOR_CACHE_DIR": str(folder / "compiled")}
    began = time.time()
    subprocess.run([*words, *extra], check=True, stdout=subprocess.DEVNULL, env={**os.environ, **compiled})
    events = [json.loads(line) for line in (folder / "runs" / name / "events.jsonl").read_text().splitlines()]
    evals = [e for e in events if e["kind"] == "eval"]
    spent_on_evals, reached = 0.0, None
    for e in evals:
        spent_on_evals += e["seconds"]
        if reached is None and e["loss"] <= goal:
            reached = e["time"] - began - spent_on_evals
    whole = evals[-1]["time"] - began - spent_on_evals
    return {"seed": seed, "reached_s": reached, "final": evals[-1]["loss"], "steps": steps, "seconds": whole}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nanogpt", required=True, help="folder of a nanoGPT checkout")
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--share", type=float, default=0.25, help="our run's length as a share of nanoGPT's minutes")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--lrs", type=float, nargs="+", default=[6e-4, 1e-3, 2e-3])
    parser.add_argument("--speed", type=float, default=2500.0, help="our tokens/s, to choose the number of steps")
    parser.add_argument("--batch-tokens", type=int, default=4096, help="ours; nanoGPT's steps are of 4096 too")
    parser.add_argument("--goal", type=float, help="skip nanoGPT and use this validation loss")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", nargs=2, metavar=("FOLDER", "LR"), help=argparse.SUPPRESS)
    args, extra = parser.parse_known_args()
    if not (Path(args.nanogpt) / "model.py").is_file():
        parser.error(f"--nanogpt {args.nanogpt}: no model.py there; give the folder of a nanoGPT checkout")
    if args.child:
        print(json.dumps(train_nanogpt(args.nanogpt, Path(args.child[0]), args.minutes, float(args.child[1]))))
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
        prepare(folder)
        tried = []
        for lr in [] if args.goal else args.lrs:
            words = [sys.executable, __file__, "--nanogpt", args.nanogpt, "--minutes", str(args.minutes)]
            done = subprocess.run([*words, "--child", scratch, str(lr)], check=True, stdout=subprocess.PIPE, text=True)
            tried.append(json.loads(done.stdout.splitlines()[-1]))
        goal = args.goal or min(t["best"] for t in tried)
        rates = ", ".join(f"lr {t['lr']:g}: {t['best']:.4f}" for t in tried) or "given"
        print(f"goal: validation loss {goal:.4f} in {args.minutes:g} minutes ({rates})", flush=True)
        ours = []
        for seed in range(1, args.seeds + 1):
            ours.append(train_ours(folder, args.minutes * args.share, seed, goal, extra, args.speed, args.batch_tokens))
            reached = ours[-1]["reached_s"]
            share = f"{reached / 60 / args.minutes:.3f} of nanoGPT's time" if reached else "not reached"
            verdict = "pass" if reached and reached <= 15 * args.minutes else "FAIL"
            last = f"{ours[-1]['final']:.4f} after {ours[-1]['seconds'] / 60:.2f} min"
            print(f"seed {seed}: {share}, final validation loss {last}: {verdict}", flush=True)
        if args.json:
            args.json.write_text(json.dumps({"goal": goal, "nanogpt": tried, "ours": ours}, indent=2))


if __name__ == "__main__":
    main()
