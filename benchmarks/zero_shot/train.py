"""Train the weights of `ZeroShotForecaster` on synthetic series, for a number of minutes.

The frozen part is the embedded language model with LoRA, the same shape with random weights, or
nothing. A checkpoint is written every minute; a run with the same file goes on from there, with a
learning rate that falls to zero at the end of ``--minutes``. The weights are averaged over the last
steps (an exponential moving average).

    PYTHONPATH=benchmarks python -m zero_shot.train --checkpoint FILE --minutes 60
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from tsllm.adapters.zero_shot import LEVELS, ZeroShotModel
from tsllm.backbone import DEFAULT_BACKBONE, load_backbone, tuned
from tsllm.pretrained import ZERO_SHOT
from zero_shot.series import draw

#: Steps of context of a batch, and how often.
LENGTHS = ((64, 0.15), (128, 0.2), (256, 0.2), (512, 0.2), (1024, 0.25))
TOKENS = 4096
FROZEN = {
    "pretrained": DEFAULT_BACKBONE,
    "random": f"random:{DEFAULT_BACKBONE}?seed=0",
    "none": None,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, required=True, help="a .safetensors file")
    parser.add_argument("--minutes", type=float, default=60.0, help="of all runs together")
    parser.add_argument("--steps", type=int, help="of all runs together, instead of --minutes")
    parser.add_argument("--frozen", choices=list(FROZEN), default="pretrained")
    parser.add_argument("--layers", type=int, default=ZERO_SHOT.layers)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--export", type=Path, help="write the averaged weights to this file")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    model = build(args.frozen, args.layers, dtype="bfloat16")
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.learning_rate, weight_decay=0.01)
    average = {name: value.detach().clone() for name, value in model.named_parameters()}
    step, spent = 0, 0.0
    log = args.checkpoint.with_suffix(".jsonl")
    if args.checkpoint.exists():
        step, spent = _restore(args.checkpoint, model, optimizer, average)
        print(f"going on from step {step}, after {spent / 60:.1f} minutes", flush=True)
    rng = np.random.default_rng([args.seed, step])
    losses: list[float] = []
    begun = last = time.monotonic()
    model.train()
    while True:
        done = (spent + time.monotonic() - begun) / max(60 * args.minutes, 1e-9)
        done = step / args.steps if args.steps else done
        if done >= 1:
            break
        rate = min(1.0, (step + 1) / 200) * 0.5 * (1 + math.cos(math.pi * done))
        for group in optimizer.param_groups:
            group["lr"] = args.learning_rate * rate + 1e-6
        steps = int(rng.choice([n for n, _ in LENGTHS], p=[p for _, p in LENGTHS]))
        batch = examples(rng, TOKENS * model.token_length // steps, steps, model)
        loss = _loss(model, *batch)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        share = min(0.999, step / (step + 50))
        with torch.no_grad():
            for name, value in model.named_parameters():
                average[name].lerp_(value, 1 - share)
        losses.append(loss.item())
        if time.monotonic() - last > 60:
            last = time.monotonic()
            total = spent + last - begun
            _write(args.checkpoint, model, optimizer, average, step, total)
            held = evaluate(model, average)
            line = {"step": step, "minutes": total / 60, "loss": np.mean(losses), "held": held}
            print(json.dumps(line), flush=True)
            with log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            losses = []
    if losses:
        _write(args.checkpoint, model, optimizer, average, step, spent + time.monotonic() - begun)
    if args.export is not None:
        halves = {name: value.half().contiguous() for name, value in sorted(average.items())}
        save_file(halves, args.export)
        print(args.export, hashlib.sha256(args.export.read_bytes()).hexdigest())


def build(frozen: str, layers: int, dtype: str = "float32") -> ZeroShotModel:
    """Build a new model around a frozen part."""
    spec = FROZEN[frozen]
    if spec is None:
        return ZeroShotModel(None)
    backbone = load_backbone(spec, layers=layers, device="cpu", dtype=dtype)
    return ZeroShotModel(tuned(backbone, lora=ZERO_SHOT.lora))


def examples(
    rng: np.random.Generator, count: int, steps: int, model: ZeroShotModel
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw series with a horizon after them, what is observed, and seasons."""
    drawn = draw(rng, count, steps + model.horizon)
    x = torch.from_numpy(drawn.values)  # (batch, steps + horizon)
    observed = torch.ones(x.shape, dtype=torch.bool)
    begin = torch.from_numpy(rng.integers(0, model.token_length, count))  # (batch,)
    observed &= torch.arange(x.shape[1]) >= begin[:, None]
    gappy = torch.from_numpy((rng.random(count) < 0.12)[:, None] * rng.uniform(0, 0.2, (count, 1)))
    missing = torch.from_numpy(rng.random(x.shape)) < gappy
    missing.scatter_(1, begin[:, None], False)
    observed &= ~missing
    return x, observed, torch.from_numpy(drawn.seasons)


def _loss(model: ZeroShotModel, x: Tensor, observed: Tensor, seasons: Tensor) -> Tensor:
    """Return the mean pinball loss after each token, in units of the usual change."""
    steps = x.shape[1] - model.horizon
    number = steps // model.token_length
    after = torch.rand(len(x), number).argsort(-1)[:, : max(1, number // 2)]  # half of the tokens
    with torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
        quantiles, tokens = model(x[:, :steps], observed[:, :steps], seasons, after=after)
    ends = model.token_length * (after + 1) - 1  # (batch, picked)
    ahead = torch.arange(1, model.horizon + 1)
    target = x.gather(1, (ends[..., None] + ahead).flatten(1)).view(*ends.shape, -1)
    target = (target - tokens.anchor[..., None]) / tokens.scale[..., None]
    error = (
        target.clamp(-100, 100).float()[..., None] - quantiles
    )  # (batch, tokens, horizon, levels)
    levels = torch.tensor(LEVELS)
    pinball = torch.maximum(levels * error, (levels - 1) * error).mean(
        -1
    )  # (batch, tokens, horizon)
    weight = 1 / tokens.usual_change.clamp(0.2, 5.0)  # (batch, tokens)
    weight = torch.where((tokens.seen >= 4) & (tokens.scale > 1e-5), weight, 0.0)
    # The loss of a few series that explode must not hide all others.
    each = (pinball.mean(-1) * weight).clamp_max(20.0)
    return 2 * each.sum() / (weight > 0).sum().clamp_min(1)


@torch.no_grad()
def evaluate(model: ZeroShotModel, average: dict[str, Tensor]) -> dict[int, float]:
    """Return the loss of the averaged weights on held-out synthetic series, by length."""
    own = {name: value.detach().clone() for name, value in model.named_parameters()}
    for name, value in model.named_parameters():
        value.copy_(average[name])
    model.eval()
    torch.manual_seed(0)
    found = {}
    for steps, _ in LENGTHS:
        batch = examples(np.random.default_rng([987654, steps]), 8192 // steps + 100, steps, model)
        found[steps] = _loss(model, *batch).item()
    for name, value in model.named_parameters():
        value.copy_(own[name])
    model.train()
    return found


def _write(
    path: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: dict[str, Tensor],
    step: int,
    spent: float,
) -> None:
    """Write a checkpoint: weights, averages and the moments of Adam."""
    tensors = {"step": torch.tensor(step), "spent": torch.tensor(spent, dtype=torch.float64)}
    for name, value in model.named_parameters():
        tensors[f"model.{name}"] = value.detach().contiguous()
        tensors[f"average.{name}"] = average[name].contiguous()
        for key, moment in optimizer.state[value].items():
            tensors[f"adam.{name}.{key}"] = torch.as_tensor(moment).contiguous()
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    save_file(tensors, partial)
    partial.replace(path)


def _restore(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, average: dict[str, Tensor]
) -> tuple[int, float]:
    """Read a checkpoint: the steps and the seconds so far."""
    tensors = load_file(path)
    with torch.no_grad():
        for name, value in model.named_parameters():
            value.copy_(tensors[f"model.{name}"])
            average[name].copy_(tensors[f"average.{name}"])
            keys = [k for k in tensors if k.startswith(f"adam.{name}.")]
            optimizer.state[value] = {k.rpartition(".")[2]: tensors[k].clone() for k in keys}
    return int(tensors["step"]), float(tensors["spent"])


if __name__ == "__main__":
    main()
