"""Errors on streams far longer than the training sequences, for each mixer of Aaren.

A synthetic series changes its regime (level, period, phase) every few dozen tokens; a mixer trained
on 64 tokens is tested token by token up to 2,048. This task rewards forgetting: it shows whether
the forecasts of a stream drift, and does not rank the mixers on real data.

There is no recipe for this, because the mixers are trained without a forecaster.

    python benchmarks/aaren_stream.py --seeds 0 1
"""

from __future__ import annotations

import time

import torch
from measuring import parser, peak_memory_mib, write
from torch import Tensor, nn

from tsllm.adapters.aaren.attention import AarenStack

MIXERS = {
    "aaren, decay": {"mixer": "aaren", "decay": True},
    "aaren": {"mixer": "aaren"},
    "mingru": {"mixer": "mingru"},
    "attention": {"mixer": "attention"},
    "none": {"mixer": "none"},
}
PATCH, TRAINED, LONGEST = 8, 64, 2048
RANGES = [(32, 64), (64, 128), (128, 512), (512, 2048)]


class NextPatch(nn.Module):
    """Forecast the next patch from a patch, the one before it, and the state of a mixer."""

    def __init__(self, hidden: int, **settings: object) -> None:
        super().__init__()
        self.token_layer = nn.Linear(2 * PATCH, hidden)
        self.stack = AarenStack(2, hidden, 4, feedforward=2 * hidden, **settings)
        self.norm, self.head = nn.LayerNorm(hidden), nn.Linear(hidden, PATCH)

    def forward(self, patches: Tensor) -> Tensor:
        """Map (rows, tokens, PATCH) to the forecasts of the patches after each."""
        before = torch.cat([torch.zeros_like(patches[:, :1]), patches[:, :-1]], 1)
        tokens = self.token_layer(torch.cat([patches, before], -1))  # (rows, tokens, hidden)
        out: Tensor = self.head(self.norm(self.stack(tokens)))
        return out


def main() -> None:
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    arguments.add_argument("--variants", nargs="+", default=list(MIXERS), choices=list(MIXERS))
    arguments.add_argument("--steps", type=int, default=1500)
    arguments.add_argument("--rows", type=int, default=64, help="test series")
    arguments.add_argument("--hidden", type=int, default=64)
    args = arguments.parse_args()
    torch.set_num_threads(1)
    started, table = time.perf_counter(), []
    test = make_series(args.rows, LONGEST + 1, torch.Generator().manual_seed(10_000))
    for name in args.variants:
        for seed in args.seeds:
            begun = time.perf_counter()
            model = trained(MIXERS[name], seed, args.steps, args.hidden)
            row = {"method": name, "seed": seed, "seconds": time.perf_counter() - begun}
            row["parameters"] = sum(p.numel() for p in model.parameters())
            row |= tested(model, test)
            table.append(row)
            print("  ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}"
                            for k, v in row.items()), flush=True)  # fmt: skip
    results = {
        "task": "regime-switching seasonal series, next patch",
        "patch": PATCH,
        "trained_tokens": TRAINED,
        "training_steps": args.steps,
        "table": table,
        "seconds": time.perf_counter() - started,
        "memory": peak_memory_mib(),
    }
    write("aaren_stream" + args.tag, results, args.out)


def make_series(rows: int, tokens: int, generator: torch.Generator) -> Tensor:
    """Make series whose level, period and phase change at random times: (rows, tokens, PATCH)."""
    steps = tokens * PATCH
    change = torch.rand(rows, steps, generator=generator) < 1 / (40 * PATCH)
    change[:, 0] = True
    regime = change.cumsum(1) - 1  # (rows, steps)
    most = int(regime.max()) + 1

    def draw(low: float, high: float) -> Tensor:
        chosen = low + (high - low) * torch.rand(rows, most, generator=generator)
        return chosen.gather(1, regime)  # (rows, steps)

    time_ = torch.arange(steps)
    angle = 2 * torch.pi * (time_ / draw(12, 60) + draw(0, 1))
    noise = torch.randn(rows, steps, generator=generator)
    values = draw(-2, 2) + draw(0.5, 1.5) * angle.sin() + 0.2 * noise
    return values.unflatten(1, (tokens, PATCH))


def trained(settings: dict[str, object], seed: int, steps: int, hidden: int) -> NextPatch:
    """Train on prefixes of 64 tokens."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    model = NextPatch(hidden, **settings)
    optimiser = torch.optim.Adam(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        batch = make_series(32, TRAINED + 1, generator)
        loss = (model(batch[:, :-1]) - batch[:, 1:]).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return model.eval()


@torch.no_grad()
def tested(model: NextPatch, test: Tensor) -> dict[str, float]:
    """Return the squared error over ranges of the stream, and of re-reading the last 64 tokens."""
    errors = torch.cat(
        [(model(rows[:, :-1]) - rows[:, 1:]).square().mean((0, 2))[None] for rows in test.split(8)]
    ).mean(0)  # (tokens,)
    result = {f"tokens {a}-{b}": float(errors[a:b].mean()) for a, b in RANGES}
    windows = test.unfold(1, TRAINED + 1, 97).transpose(2, 3)  # (rows, windows, 65, PATCH)
    again = windows.flatten(0, 1)
    last = torch.cat([model(part[:, :-1])[:, -1] for part in again.split(256)])
    result["last 64 read anew"] = float((last - again[:, -1]).square().mean())
    return result


if __name__ == "__main__":
    main()
