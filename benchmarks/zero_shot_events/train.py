"""Train the network of zero-shot events on synthetic streams, in three steps that can be repeated.

    PYTHONPATH=benchmarks python -m zero_shot_events.train draw FOLDER --shards 12
    PYTHONPATH=benchmarks python -m zero_shot_events.train read FOLDER
    PYTHONPATH=benchmarks python -m zero_shot_events.train fit FOLDER --steps 3000 --export FILE

"draw" writes shards of streams. "read" computes the estimates and the features of each, which have
no trained weights. "fit" trains on all shards but two, and goes on from its checkpoint.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tsllm.adapters.events.batch import pad_sequences
from tsllm.adapters.events.zero_shot.estimates import PROCESSES, estimate, log_normal_terms
from tsllm.adapters.events.zero_shot.features import features
from tsllm.adapters.events.zero_shot.history import read_history
from tsllm.adapters.events.zero_shot.model import ZeroShotEventModel, evidence_of, successes
from zero_shot_events.processes import KINDS, draw

#: Numbers of types of the shards, in turn.
TYPES = (1, 2, 3, 1, 4, 5, 2, 8)
STREAMS, EVENTS = 1024, 256
#: Files that a shard is read into, so that an interrupted run loses little.
QUARTERS = 4
#: Streams that are read at once, and their numbers of events.
AT_ONCE, LENGTHS = 64, (40, 80, 128, 200, 256)
BATCH = 2048
#: Shards, of one and of three types, that are not trained on.
HELD_OUT = ("0010", "0011")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("draw", "read", "fit"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shards", type=int, default=12)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--export", type=Path, help="write the averaged weights to this file")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    torch.manual_seed(args.seed)
    args.folder.mkdir(parents=True, exist_ok=True)
    {"draw": draw_shards, "read": read_shards, "fit": fit}[args.what](args)


def draw_shards(args: argparse.Namespace) -> None:
    """Write streams, shard by shard; those that are there are kept."""
    for number in range(args.shards):
        types = TYPES[number % len(TYPES)]
        path = args.folder / f"{number:04d}_{types}.npz"
        if not path.exists():
            drawn = draw(np.random.default_rng([7, number]), STREAMS, EVENTS, types)
            _write(path, gaps=np.float32(drawn.gaps), types=np.int8(drawn.types), kinds=drawn.kinds)


def read_shards(args: argparse.Namespace) -> None:
    """Write what the network reads at each event, a quarter of each shard after the other."""
    paths = sorted(args.folder.glob("????_?.npz"))
    for quarter in range(QUARTERS):
        for path in paths:
            to = path.with_name(f"{path.stem}_read{quarter}.npz")
            if to.exists():
                continue
            begun = time.process_time()
            rng = np.random.default_rng([8, int(path.stem[:4]), quarter])
            with np.load(path) as shard:
                gaps, types, kinds = (shard[name] for name in ("gaps", "types", "kinds"))
            size = len(gaps) // QUARTERS
            parts: list[dict[str, np.ndarray]] = []
            for first in range(quarter * size, (quarter + 1) * size, AT_ONCE):
                rows = slice(first, first + AT_ONCE)
                parts.append(read(rng, gaps[rows], types[rows], kinds[rows], int(path.stem[-1])))
            _write(to, **{name: np.concatenate([one[name] for one in parts]) for name in parts[0]})
            print(to.name, f"{time.process_time() - begun:.1f} s", flush=True)


@torch.no_grad()
def read(
    rng: np.random.Generator, gaps: np.ndarray, types: np.ndarray, kinds: np.ndarray, n_types: int
) -> dict[str, np.ndarray]:
    """Compute the examples of some streams, an array (examples, ...) each."""
    events, count = int(rng.choice(LENGTHS)), len(gaps)
    begin = int(rng.integers(0, EVENTS - events + 1)) if rng.random() < 0.3 else 0
    own = gaps[:, begin : begin + events].astype(np.float64)
    # In units of the mean of some first events, not quite right.
    upto = rng.integers(10, events + 1, count)
    scale = np.array([row[:n].mean() for row, n in zip(own, upto, strict=True)])
    own = own / (scale * np.exp(0.2 * rng.normal(size=count)))[:, None]
    batch = pad_sequences(
        list(np.maximum(own, 1e-6)),
        list(types[:, begin : begin + events].astype(np.int64)),
        first_known=[begin == 0] * count,
        tails=[np.nan] * count,
    )
    history = read_history(batch, n_types)
    found = estimate(history)
    gains, guesses = successes(history, found)
    shown = features(history, found, gains, guesses)[:, :-1]
    at = history.counted.bool()
    kind = torch.from_numpy(kinds.astype(np.int64))[:, None].expand_as(history.counted)
    values = {
        "read": shown.half(), "evidence": evidence_of(history, gains)[:, :-1].half(),
        "gains": gains, "guesses": guesses.half(), "middle": found.middle[:, :-1],
        "spread": found.spread[:, :-1], "log_gap": history.gaps.log(), "kind": kind.to(torch.int8),
    }  # fmt: skip
    return {name: value[at].numpy() for name, value in values.items()}


def log_likelihoods(model: ZeroShotEventModel, examples: dict[str, Tensor]) -> Tensor:
    """Compute the log-likelihood of each example, (examples,)."""
    gains, guesses, log_gap = examples["gains"], examples["guesses"], examples["log_gap"]
    out = model.weigh(
        examples["read"], examples["evidence"], examples["middle"], examples["spread"]
    )
    types = (out.guesses + guesses).logsumexp(-1, keepdim=True)
    density, _ = log_normal_terms(log_gap[:, None], out.means, out.spreads)
    own = (out.shares + density).logsumexp(-1, keepdim=True) + types
    processes, times = gains.split([len(PROCESSES), gains.shape[1] - len(PROCESSES)], -1)
    both = torch.cat([processes, times - guesses[:, :1] + types, own], -1)
    return (out.weights + both).logsumexp(-1)


def fit(args: argparse.Namespace) -> None:
    """Train with a learning rate that falls to zero, and report on the held-out shards."""
    paths = sorted(args.folder.glob("*_read?.npz"))
    held_out = [path for path in paths if path.name.startswith(HELD_OUT)]
    shards = [_load(path) for path in paths if path not in held_out]
    train = {name: torch.cat([one[name] for one in shards]) for name in shards[0]}
    shards = [_load(path) for path in held_out]
    held = {name: torch.cat([one[name] for one in shards]).float() for name in shards[0]}
    model = ZeroShotEventModel()
    some = train["read"][torch.randperm(len(train["read"]))[:100000]].float()
    model.centre.copy_(some.mean(0))
    model.scale.copy_(some.std(0).clamp_min(1e-3))
    average = {name: value.detach().clone() for name, value in model.named_parameters()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.learning_rate, weight_decay=0.01)
    checkpoint = args.folder / "checkpoint.safetensors"
    step = _restore(checkpoint, model, optimizer, average) if checkpoint.exists() else 0
    begun = last = time.monotonic()
    losses: list[float] = []
    print(f"{len(train['read']):,} examples, from step {step}", flush=True)
    while step < args.steps:
        rate = min(1.0, (step + 1) / 50) * (1 - step / args.steps)
        for group in optimizer.param_groups:
            group["lr"] = args.learning_rate * rate
        rows = torch.randint(len(train["read"]), (BATCH,))
        values = log_likelihoods(model, {k: v[rows].float() for k, v in train.items()})
        loss = -values.clamp_min(-20).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        with torch.no_grad():
            for name, value in model.named_parameters():
                average[name].lerp_(value, 1 - min(0.99, step / (step + 20)))
        losses.append(loss.item())
        if time.monotonic() - last > 25 or step == args.steps:
            last = time.monotonic()
            _save(checkpoint, model, optimizer, average, step)
            line = {"step": step, "minutes": (last - begun) / 60, "loss": float(np.mean(losses))}
            print(json.dumps(line | report(model, average, held)), flush=True)
            losses = []
            if args.export is not None:
                export(model, average, args.export)


@torch.no_grad()
def report(
    model: ZeroShotEventModel, average: dict[str, Tensor], held: dict[str, Tensor]
) -> dict[str, float]:
    """Return the log-likelihood per event on held-out streams, by kind, of averaged weights."""
    own = ZeroShotEventModel()
    own.load_state_dict(model.state_dict() | average)
    values = log_likelihoods(own, held)
    found = {name: values[held["kind"] == k].mean().item() for k, (name, _) in enumerate(KINDS)}
    return {"held": values.mean().item(), **found}


def export(model: ZeroShotEventModel, average: dict[str, Tensor], path: Path) -> None:
    """Write the averaged weights as the package holds them, and print the file's sha256."""
    tensors = model.state_dict() | average
    save_file({name: one.half().contiguous() for name, one in sorted(tensors.items())}, path)
    print(path, hashlib.sha256(path.read_bytes()).hexdigest(), flush=True)


def _save(
    path: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: dict[str, Tensor],
    step: int,
) -> None:
    """Write a checkpoint: weights, averages and the moments of Adam."""
    tensors = {"step": torch.tensor(step)}
    tensors |= {f"model.{name}": value for name, value in model.state_dict().items()}
    for name, value in model.named_parameters():
        tensors[f"average.{name}"] = average[name]
        for key, moment in optimizer.state[value].items():
            tensors[f"adam.{name}.{key}"] = torch.as_tensor(moment)
    partial = path.with_suffix(".partial")
    save_file({name: value.detach().contiguous() for name, value in tensors.items()}, partial)
    partial.replace(path)


def _restore(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, average: dict[str, Tensor]
) -> int:
    """Read a checkpoint of `_save`; returns its step."""
    tensors = load_file(path)
    model.load_state_dict({name: tensors[f"model.{name}"] for name in model.state_dict()})
    for name, value in model.named_parameters():
        average[name] = tensors[f"average.{name}"]
        optimizer.state[value] = {
            key: tensors[f"adam.{name}.{key}"] for key in ("step", "exp_avg", "exp_avg_sq")
        }
    return int(tensors["step"])


def _load(path: Path) -> dict[str, Tensor]:
    with np.load(path) as shard:
        return {name: torch.from_numpy(shard[name]) for name in shard.files}


def _write(path: Path, **arrays: np.ndarray) -> None:
    partial = path.with_name("partial.npz")
    np.savez(partial, **arrays)
    partial.replace(path)


if __name__ == "__main__":
    main()
