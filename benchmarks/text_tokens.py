"""Measure texts inside AutoTimes' tokens, as its dates are, beside the effects of texts.

A prototype: the token of a segment gets a trained linear map of the reduced texts of the segment
and of the next one. Both are scaled to length 1 and weighted as the paper's dates are; ``--plain``
adds the map as it is. The data are the ``weather`` of ``text.py``, and 2016 is the part to score.
The reduction is learnt on the training part.

    python benchmarks/text_tokens.py --data FOLDER
    python benchmarks/text_tokens.py --data FOLDER --plain --start 0
    python benchmarks/text_tokens.py --data FOLDER --plain --start 0 --no-model --context 96
"""

from __future__ import annotations

import re
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from measuring import parser, write
from text import SETS
from torch import Tensor, nn
from torch.nn import functional

from tsllm import AutoTimesForecaster, Context
from tsllm.adapters.autotimes import AutoTimesModel
from tsllm.text import TextReduction, make_encoder

TOKEN = 8


def main() -> None:
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS)
    arguments.add_argument("--components", type=int, default=64, help="of a step's text")
    arguments.add_argument("--start", type=float, default=1.0, help="weight before training")
    arguments.add_argument("--context", type=int, default=48, help="steps that are read")
    arguments.add_argument("--plain", action="store_true", help="texts and tokens of any length")
    arguments.add_argument("--steps", type=int, default=500, help="training steps")
    arguments.add_argument("--rate", type=float, default=2e-3, help="learning rate")
    arguments.add_argument("--loss-on", default="all", choices=("all", "last"))
    arguments.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    arguments.add_argument("--no-model", action="store_true", help="leave the backbone out")
    arguments.add_argument("--store", help="the embedding store; default: the user's")
    args = arguments.parse_args()
    torch.set_num_threads(1)
    data = SETS["weather"](Path(args.data))
    last = data.train + data.validation
    y, X = data.y.iloc[:last], data.X.iloc[:last]  # the test part is never read
    features = _features(X["text"], data.train, args)
    rows = []
    for way in args.ways:
        for seed in args.seeds:
            started = time.perf_counter()
            fitted, error = _score(y, X, data.train, features, way, seed, args)
            row: dict[str, Any] = {"texts": way}
            if WAYS[way][1]:
                row |= {"added": "plain" if args.plain else "length 1", "first_weight": args.start}
                row |= {"weight": fitted.fitted_.model.add_scale.item()}
            row |= {"seed": seed, "mse": error, "fit_seconds": time.perf_counter() - started}
            rows.append(row)
            print(row, flush=True)
        settings = {"backbone_layers": None if args.no_model else args.layers}
        settings |= {"context": args.context, "components": args.components, "loss": args.loss_on}
        settings |= {"learning_rate": args.rate, "max_steps": args.steps, "part": "validation"}
        write("text_tokens" + args.tag, {"settings": settings, "texts": rows}, args.out)


class TextTokens(AutoTimesModel):
    """AutoTimes whose timestamps are features of texts, mapped to the width of a token."""

    def __init__(
        self, *args: Any, n_features: int, start: float, unit: bool, **kwargs: Any
    ) -> None:
        super().__init__(*args, mix_timestamps=True, **kwargs)
        self.texts = nn.Linear(n_features, self.width)
        self.unit = unit
        nn.init.constant_(self.add_scale, start)

    def _check_timestamps(self, timestamps: Tensor | None, x: Tensor, steps: int) -> None:
        pass  # features have another width

    def _next_segments(
        self,
        segments: Tensor,
        timestamps: Tensor | None,
        attended: Tensor | None,
        past: Any = None,
        *,
        last_only: bool = False,
        use_cache: bool = False,
    ) -> tuple[Tensor, Any]:
        tokens, texts = self.token_dropout(self.encoder(segments)), self.texts(timestamps)
        if self.unit:  # as dates are added
            tokens = functional.normalize(tokens, dim=-1, eps=1e-12)
            texts = functional.normalize(texts, dim=-1, eps=1e-12)
        tokens = tokens + self.add_scale * texts
        if self.backbone is not None:
            tokens = self.backbone.hidden(tokens, attention_mask=attended).states
        return self.decoder(tokens[:, -1:] if last_only else tokens), None


class TextTokensForecaster(AutoTimesForecaster):
    """AutoTimes with texts in its tokens; the sentence of a segment's dates finds its texts."""

    # Of the class, because training clones the forecaster.
    segments: Tensor
    rows: dict[str, int]
    start: float
    unit: bool

    @classmethod
    def bind(cls, texts: np.ndarray, stamps: pd.Index, start: float, unit: bool) -> None:
        """Give it the features of the segment that starts at each stamp, (stamps, features)."""
        cls.segments = torch.tensor(texts, dtype=torch.float32)
        cls.rows = {stamp: i for i, stamp in enumerate(stamps.strftime("%Y-%m-%d %H:%M:%S"))}
        cls.start, cls.unit = start, unit

    def _build_model(self, backbone: Any, shape: Any) -> nn.Module:
        return TextTokens(
            backbone,
            shape.extra["token_length"],
            dropout=self.dropout,
            n_features=self.segments.shape[1],
            start=self.start,
            unit=self.unit,
        )

    def _embed(self, state: Any, sentences: list[str]) -> Tensor:
        firsts = [re.search(r"from (.*) to ", one)[1] for one in sentences]
        return self.segments[[self.rows[first] for first in firsts]]

    def _texts_to_embed(self, shape: Any, contexts: Any, backbone: Any) -> Any:
        return iter(())

    def _check_own_parameters(self) -> None:
        pass  # the dates are not embedded: no language model is needed


#: How texts enter: whether by effects, and as which reading in the tokens.
WAYS: dict[str, tuple[bool, str | None]] = {
    "none": (False, None),
    "effects": (True, None),
    "tokens, mean": (False, "mean"),
    "tokens, steps": (False, "steps"),
    "tokens, mean, and effects": (True, "mean"),
    "tokens, steps, and effects": (True, "steps"),
}


def _features(texts: pd.Series, train: int, args: Any) -> dict[str, np.ndarray]:
    """Reduce the texts of the segment that starts at each step, and of the next: by reading."""
    rows = [one if isinstance(one, str) else None for one in texts]
    encoder = make_encoder(args.backbone, rows[:train], store=args.store, device="cpu")
    vectors = encoder.encode(rows)
    reduction = TextReduction.learn(vectors.rows(slice(0, train)), args.components)
    reduced = reduction.features(vectors)
    padded = np.concatenate([reduced, np.zeros((2 * TOKEN, reduced.shape[1]))])
    windows = np.lib.stride_tricks.sliding_window_view(padded, TOKEN, axis=0).swapaxes(1, 2)
    windows = windows[: len(reduced) + TOKEN]  # (segments, token, components)
    here, after = windows[: len(reduced)], windows[TOKEN:]
    flat = after.reshape(len(after), -1)
    means = here.mean(axis=1)
    return {
        "mean": np.concatenate([means, after.mean(axis=1)], axis=1),
        "steps": np.concatenate([means, flat], axis=1),
    }


def _score(
    y: pd.Series,
    X: pd.DataFrame,
    train: int,
    features: dict[str, np.ndarray],
    way: str,
    seed: int,
    args: Any,
) -> tuple[AutoTimesForecaster, float]:
    """Fit on the training part; return the forecaster and its error on the part after it."""
    effects, reading = WAYS[way]
    settings: dict[str, Any] = {
        "backbone": None if args.no_model else args.backbone,
        "backbone_layers": None if args.no_model else args.layers,
        "context_length": args.context,
        "token_length": TOKEN,
        "max_steps": args.steps,
        "learning_rate": args.rate,
        "loss_on": args.loss_on,
        "random_state": seed,
    }
    if effects:
        settings |= {"text_covariates": ("text",), "text_backbone": args.backbone}
    settings["embedding_store"] = args.store
    if reading is None:
        forecaster = AutoTimesForecaster(**settings)
    else:  # a model that mirrors a series may not mirror the effect of a text
        forecaster = TextTokensForecaster(timestamps=True, flip_invariance=False, **settings)
        TextTokensForecaster.bind(features[reading], y.index, args.start, not args.plain)
    origins = np.arange(train, len(y) - TOKEN + 1)
    values = y.to_numpy(dtype=float)
    texts = X.to_numpy(dtype=object)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        forecaster.fit(
            y.iloc[:train], X=X.iloc[:train] if effects else None, fh=range(1, TOKEN + 1)
        )
        contexts = [
            Context(values[:at], times=y.index[:at], past_x=texts[:at] if effects else None)
            for at in origins
        ]
        future = [texts[at : at + TOKEN] for at in origins] if effects else None
        found = forecaster.forecast(contexts, TOKEN, future_x=future)[:, :, 0, 0]
    actual = values[origins[:, None] + np.arange(TOKEN)]
    squares = np.square((found - actual) / np.nanstd(values[:train]))
    return forecaster, float(np.nanmean(squares))


if __name__ == "__main__":
    main()
