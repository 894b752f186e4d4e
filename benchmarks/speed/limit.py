"""How near calls are to the machine's limit: their arithmetic against the rate of its products.

For a training step, embeddings, rollouts and a batch of forecasts: the FLOPs by formula, the rate
at which this process multiplies a large square matrix, and the rate at which it multiplies
matrices of the call's own shapes and nothing else. Beside each call stands the plain published
way: transformers' own module, run as the authors' code runs it, one prompt or window at a time
where that is how it reads them. All of them take turns in one process, because the rate of a
shared machine changes from second to second.

    python benchmarks/speed/limit.py
    python benchmarks/speed/limit.py --calls "training step" --dtypes float32

The rows of other calls stay in the file of results.
"""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from transformers.activations import ACT2FN

from tsllm import load_backbone
from tsllm.adapters.autotimes import AutoTimesModel
from tsllm.adapters.losses import next_segment_loss
from tsllm.backbone import Backbone, native_bfloat16
from tsllm.embeddings.encoding import embed_texts

sys.path.append(str(Path(__file__).parents[1]))
from measuring import in_turn, machine, parser, spread, write

GPT2 = "random:gpt2?hidden=768&layers=6&heads=12"
MINILM = "sentence-transformers/all-MiniLM-L6-v2"
TOKEN, TOKENS, WINDOWS = 96, 7, 64
PROMPT_TOKENS = 272
HORIZON, SERIES = 384, 32
SQUARE = 1536
Call = Callable[[], object]


@dataclass(frozen=True)
class Shape:
    """The sizes of a Transformer, for its FLOPs."""

    layers: int
    hidden: int
    inner: int
    causal: bool

    @classmethod
    def of(cls, backbone: Backbone) -> Shape:
        """Return the sizes of a backbone."""
        config = backbone._shared.config
        inner = getattr(config, "n_inner", None) or getattr(config, "intermediate_size", None)
        hidden = backbone.hidden_size
        return cls(backbone.n_layers, hidden, inner or 4 * hidden, backbone.natively_causal)

    def products(self) -> list[tuple[int, int]]:
        """Return the shapes of a layer's weights."""
        h = self.hidden
        joint = [(h, 3 * h)] if self.causal else [(h, h)] * 3
        return [*joint, (h, h), (h, self.inner), (self.inner, h)]

    def flops(self, rows: int, tokens: int, seen: int = 0, *, last_only: bool = False) -> float:
        """Count the FLOPs of a forward pass of new tokens behind ``seen`` ones.

        Two for each weight and token; attention multiplies each query with each key, and each
        weight with each value: four for each number of a query and each of its keys.
        ``last_only``: of the last layer, only keys and values of all tokens, and the last token.
        """
        weights = sum(a * b for a, b in self.products())
        pairs = tokens * (seen + (tokens + 1) / 2) if self.causal else tokens * tokens
        layer = 2 * weights * tokens + 4 * self.hidden * pairs
        last = layer
        if last_only:
            keys = 2 * self.hidden**2
            last = 2 * (keys * tokens + weights - keys) + 4 * self.hidden * (seen + tokens)
        return rows * ((self.layers - 1) * layer + last)


def main() -> None:
    arguments = parser(__doc__.splitlines()[0])
    calls = {
        "training step": training_step,
        "embedding, GPT-2 width": lambda dtype: embedding(GPT2, dtype, 6),
        "embedding, MiniLM": lambda dtype: embedding(MINILM, dtype, 15),
        "embedding, MiniLM, 2 layers": lambda dtype: embedding(MINILM, dtype, 15, layers=2),
        "rollout, sliding": lambda dtype: rollout("sliding", dtype),
        "rollout, cached": lambda dtype: rollout("cached", dtype),
        "batch forecast": batch_forecast,
    }
    arguments.add_argument("--calls", nargs="+", default=list(calls), choices=list(calls))
    arguments.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    arguments.add_argument("--turns", type=int, default=7)
    args = arguments.parse_args()
    torch.set_num_threads(1)
    print(machine())
    path = args.out / f"limit_cpu{args.tag}.json"
    table = json.loads(path.read_text())["limit"] if path.exists() else []
    for name in args.calls:
        for dtype in args.dtypes:
            parts = calls[name](dtype)
            plain = parts[2] if dtype == "float32" else calls[name]("float32")[2]
            row = {"call": name, "dtype": dtype}
            row |= measured(*parts, plain, dtype, args.turns)
            if name == "rollout, cached":  # another forecast: it keeps the first statistics
                row["largest_difference"] = None
            table = [one for one in table if (one["call"], one["dtype"]) != (name, dtype)] + [row]
    order = list(calls)
    table.sort(key=lambda one: (order.index(one["call"]), one["dtype"] != "float32"))
    native = native_bfloat16(torch.device("cpu"))
    write("limit_cpu" + args.tag, {"native_bfloat16": native, "limit": table}, args.out)


def measured(
    flops: float,
    ours: Call,
    published: Call,
    own: Call,
    own_flops: float,
    plain: Call,
    dtype: str,
    turns: int,
) -> dict[str, object]:
    """Time a call, the published way, and products: the large square one, and the call's own.

    ``own`` multiplies matrices of the call's shapes, ``own_flops`` in all. ``plain`` is the
    published way in float32.
    """
    side = torch.randn(SQUARE, SQUARE, dtype=getattr(torch, dtype))
    difference = float((ours() - published()).abs().max())
    calls = {"ours": ours, "published": published, "own": own, "square": lambda: side @ side}
    if dtype != "float32":
        calls["plain"] = plain
    seconds = in_turn(calls, turns, warmup=1)
    seconds.setdefault("plain", seconds["published"])
    # The fastest of the turns: other programs only ever make one slower.
    best = {name: min(found) for name, found in seconds.items()}
    rate, square, of_own = (
        flops / best["ours"],
        2 * SQUARE**3 / best["square"],
        own_flops / best["own"],
    )
    row = {
        "gflop": flops / 1e9,
        "seconds": best["ours"],
        "published_seconds": best["published"],
        "times_published": best["published"] / best["ours"],
        "times_published_float32": best["plain"] / best["ours"],
        "gflops": rate / 1e9,
        "square_gflops": square / 1e9,
        "own_shapes_gflops": of_own / 1e9,
        "share_of_square": rate / square,
        "share_of_own_shapes": rate / of_own,
        "largest_difference": difference,
        "all_turns": spread(seconds["ours"]),
    }
    print({k: round(v, 6) if isinstance(v, float) else v for k, v in row.items()}, flush=True)
    return row


def training_step(dtype: str) -> tuple[float, Call, Call, Call, float]:
    """Train AutoTimes on 64 windows of 7 tokens: forward, backward, Adam; returns the loss."""
    core = load_backbone(GPT2, dtype=dtype)
    values = torch.randn(WINDOWS, TOKENS * TOKEN + TOKEN, 1)
    ours = AutoTimesModel(core, TOKEN)
    plain = Published(core, ours)

    def loss_of_ours() -> Tensor:
        total, count = next_segment_loss(ours, values)
        return total / count

    def loss_of_published() -> Tensor:
        forecast = plain(values[:, :-TOKEN])
        return nn.functional.mse_loss(forecast, values[:, TOKEN:])

    shape = Shape.of(core)
    # Backward, the frozen weights take no gradient: the products are those of the activations.
    flops = 2 * shape.flops(WINDOWS, TOKENS) + 3 * 2 * 2 * WINDOWS * TOKENS * TOKEN * shape.hidden
    own, own_flops = own_products(shape, WINDOWS * TOKENS, dtype, backward=True)
    return (
        flops,
        step_of(ours, loss_of_ours),
        step_of(plain, loss_of_published),
        own,
        own_flops,
    )


def step_of(model: nn.Module, loss: Callable[[], Tensor]) -> Call:
    """Return a step of training."""
    optimiser = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=5e-4)

    def step() -> Tensor:
        found = loss()
        optimiser.zero_grad()
        found.backward()
        optimiser.step()
        return found.detach()

    return step


def embedding(
    spec: str, dtype: str, number: int, *, layers: int | None = None
) -> tuple[float, Call, Call, Call, float]:
    """Embed prompts of 272 tokens by their last token, against one at a time."""
    core = load_backbone(spec, dtype=dtype, layers=layers)
    texts = prompts(core, number)
    plain = as_published(core)
    tokens = core.tokens(texts)

    def ours() -> Tensor:
        found = torch.empty(len(texts), core.hidden_size)

        def deliver(numbers: list[int], states: np.ndarray) -> None:
            found[numbers] = torch.from_numpy(states)

        embed_texts(texts, core, deliver)
        return found

    @torch.no_grad()
    def published() -> Tensor:
        rows = [
            plain(input_ids=torch.tensor([row])).last_hidden_state[0, -1].float() for row in tokens
        ]
        return torch.stack(rows)

    shape = Shape.of(core)
    flops = sum(shape.flops(1, len(row), last_only=True) for row in tokens)
    own, own_flops = own_products(shape, sum(map(len, tokens)), dtype, last_only=True)
    return flops, ours, published, own, own_flops


def prompts(core: Backbone, number: int) -> list[str]:
    """Write prompts of about 272 tokens, all different."""
    rng = np.random.default_rng(0)
    texts = []
    for _ in range(number):
        text = ""
        while core.token_counts([text + " 0.0"])[0] <= PROMPT_TOKENS - 3:
            text += f" {rng.normal():.1f}"
        texts.append(text)
    return texts


def rollout(mode: str, dtype: str) -> tuple[float, Call, Call, Call, float]:
    """Forecast 384 steps of 32 windows, against the published sliding rollout."""
    core = load_backbone(GPT2, dtype=dtype)
    values = torch.randn(SERIES, TOKENS * TOKEN, 1)
    ours = AutoTimesModel(core, TOKEN).eval()
    plain = Published(core, ours).eval()
    steps = -(-HORIZON // TOKEN)
    shape = Shape.of(core)
    if mode == "sliding":
        flops = steps * shape.flops(SERIES, TOKENS, last_only=True)
    else:
        flops = shape.flops(SERIES, TOKENS, last_only=True)
        flops += sum(shape.flops(SERIES, 1, TOKENS + step) for step in range(steps - 1))
    flops += steps * 2 * 2 * SERIES * TOKEN * shape.hidden
    own, own_flops = own_products(shape, SERIES * TOKENS, dtype, last_only=True)

    @torch.no_grad()
    def published() -> Tensor:
        x = values
        for _ in range(steps):
            x = torch.cat([x, plain(x[:, -TOKENS * TOKEN :])[:, -TOKEN:]], dim=1)
        return x[:, -HORIZON:]

    def forecast() -> Tensor:
        with torch.inference_mode():
            return ours.rollout(values, HORIZON, mode=mode)

    return flops, forecast, published, own, own_flops


def batch_forecast(dtype: str) -> tuple[float, Call, Call, Call, float]:
    """Forecast one segment of 32 windows at once, against one window at a time."""
    core = load_backbone(GPT2, dtype=dtype)
    values = torch.randn(SERIES, TOKENS * TOKEN, 1)
    ours = AutoTimesModel(core, TOKEN).eval()
    plain = Published(core, ours).eval()
    shape = Shape.of(core)
    flops = shape.flops(SERIES, TOKENS, last_only=True) + 2 * 2 * SERIES * TOKEN * shape.hidden
    own, own_flops = own_products(shape, SERIES * TOKENS, dtype, last_only=True)

    @torch.no_grad()
    def published() -> Tensor:
        return torch.cat([plain(one[None])[:, -TOKEN:] for one in values])

    def forecast() -> Tensor:
        with torch.inference_mode():
            return ours.rollout(values, TOKEN)

    return flops, forecast, published, own, own_flops


class Published(nn.Module):
    """AutoTimes as its authors run it: two linear layers around transformers' own module."""

    def __init__(self, core: Backbone, ours: AutoTimesModel) -> None:
        super().__init__()
        self.language_model = as_published(core)
        self.encoder = nn.Linear(TOKEN, core.hidden_size)
        self.decoder = nn.Linear(core.hidden_size, TOKEN)
        self.encoder.load_state_dict(ours.encoder.state_dict())
        self.decoder.load_state_dict(ours.decoder.state_dict())

    def forward(self, x: Tensor) -> Tensor:
        """Forecast the segment after each: (batch, time, 1) to the same."""
        mean = x.mean(1, keepdim=True).detach()
        x = x - mean
        std = torch.sqrt(x.var(1, keepdim=True, unbiased=False) + 1e-5)
        x = (x / std).transpose(1, 2)[:, 0].unfold(-1, TOKEN, TOKEN)  # (batch, tokens, TOKEN)
        tokens = self.encoder(x).to(self.language_model.dtype)
        states = self.language_model(inputs_embeds=tokens).last_hidden_state.float()
        return self.decoder(states).flatten(1)[..., None] * std + mean


def as_published(core: Backbone) -> nn.Module:
    """Copy a backbone's modules, with the activations of transformers' own."""
    module = copy.deepcopy(core._shared.plain)
    config = core._shared.config
    name = getattr(config, "activation_function", None) or config.hidden_act
    for part in list(module.modules()):
        for attribute, child in part.named_children():
            if isinstance(child, nn.GELU):  # see `tsllm.backbone.architectures.fuse_activations`
                setattr(part, attribute, ACT2FN[name])
    return module


def own_products(
    shape: Shape, tokens: int, dtype: str, *, backward: bool = False, last_only: bool = False
) -> tuple[Call, float]:
    """Return a call that multiplies matrices of a layer's shapes and nothing else, and its FLOPs.

    Each layer has weights of its own, so that they leave the caches as those of a model do.
    """
    kind = getattr(torch, dtype)
    whole = shape.layers - 1 if last_only else shape.layers
    sizes = shape.products() * whole + [(shape.hidden, 2 * shape.hidden)] * (shape.layers - whole)
    weights = [torch.randn(a, b, dtype=kind) for a, b in sizes]
    inputs = {a: torch.randn(tokens, a, dtype=kind) for weight in weights for a in weight.shape}

    def call() -> None:
        for weight in weights:
            inputs[weight.shape[0]] @ weight
            if backward:
                inputs[weight.shape[1]] @ weight.T

    flops = 2.0 * tokens * sum(weight.numel() for weight in weights)
    return call, flops * (2 if backward else 1)


if __name__ == "__main__":
    main()
