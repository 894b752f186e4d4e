"""Measure whether text beside series helps, and whether the language model that reads it does.

``weather`` forecasts the temperature 48 hours ahead in steps of 6, with a weather report of each
coming step: trained on 2014 and 2015, validated on 2016, tested on 2017. ``weather_no_temperature``
leaves out the sentences on temperature. The sets of Time-MMD have reports about the past, and parts
of 70, 10 and 20 %. Errors are squared errors of values standardised on the training part. Each
method runs as an ablation of its text; "ridge" is the head alone: a ridge regression for each step
ahead on own lags and reduced texts.

    python benchmarks/text.py --data FOLDER
    python benchmarks/text.py --data FOLDER --sets weather --methods ridge dlinear --seeds 0
"""

from __future__ import annotations

import re
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from measuring import parser, peak_memory_mib, write

import tsllm
from tsllm.backbone.specs import UNNAMED_SEEDS, with_random_weights
from tsllm.covariates.contemporaneous import choose_ridge
from tsllm.covariates.text_fitting import TextSeries, fit_texts
from tsllm.covariates.texts import TextWindow
from tsllm.evaluation.paired import estimate
from tsllm.evaluation.text_variants import shuffled_texts
from tsllm.text import make_encoder, split_sentences

#: Words of a sentence that tells the temperature.
TEMPERATURE = re.compile(
    r"temperature|°|degree|warm|cold|cool|hot|heat|mild|chill|freez|frost|icy", re.IGNORECASE
)
#: Reports that are as good as none, and are read as such.
MISSING = ("", "nan", "na", "none")
METHODS = ("ridge", "linear", "dlinear", "autotimes", "auto_ets", "auto")


@dataclass(frozen=True)
class TextData:
    """A series with a text at each step, and how it is split."""

    y: pd.Series
    X: pd.DataFrame
    train: int
    validation: int
    horizons: tuple[int, ...]
    season: int
    #: Whether the texts of the coming steps are known.
    known: bool

    @property
    def sizes(self) -> dict[str, int]:
        """Return the parts as `tsllm.ablate` takes them."""
        test = len(self.y) - self.train - self.validation
        return {
            "train_size": self.train,
            "validation_size": self.validation,
            "test_size": test,
        }


def main() -> None:
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--sets", nargs="+", default=list(SETS))
    arguments.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    arguments.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    arguments.add_argument("--variants", nargs="+", help="of the ablations; default: all")
    arguments.add_argument("--stride", type=int, default=1, help="steps between origins")
    arguments.add_argument("--store", help="the embedding store; default: the user's")
    arguments.add_argument("--part", choices=("test", "validation"), default="test")
    args = arguments.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    verdicts: dict[str, str] = {}
    for name in args.sets:
        data = SETS[name](Path(args.data))
        if args.part == "validation":
            data = _before_test(data)
        for method in args.methods:
            started = time.perf_counter()
            run = _ridge if method == "ridge" else _ablation
            for row in run(data, method, args):
                verdict = row.pop("verdict", None)
                if verdict:
                    verdicts[f"{name}, {method}"] = verdict
                else:
                    rows.append({"data": name, "forecaster": method, **row})
            taken = time.perf_counter() - started
            found = pd.DataFrame([one for one in rows if one["data"] == name])
            found = found[found["forecaster"] == method]
            print(f"{name}, {method}: {taken:.0f} s\n{found.round(4).to_string(index=False)}")
            print(verdicts.get(f"{name}, {method}", ""), flush=True)
            results = {"texts": rows, "verdicts": verdicts, "part": args.part}
            write("text" + args.tag, results | {"memory": peak_memory_mib()}, args.out)


# ---------------------------------------------------------------------- forecasters


def _ablation(data: TextData, method: str, args: Any) -> Iterator[dict[str, Any]]:
    """Run `tsllm.ablate` for the text of a set: a row for each variant and horizon."""
    past = () if data.known else ("text",)
    shared = {"past_covariates": past, "text_backbone": args.backbone}
    shared |= {"embedding_store": args.store}
    longest = max(data.horizons)
    context = max(96, 2 * data.season)
    made = {
        "linear": lambda: tsllm.LinearForecaster(context_length=context, **shared),
        "dlinear": lambda: tsllm.DLinearForecaster(context_length=context, **shared),
        "autotimes": lambda: tsllm.AutoTimesForecaster(
            backbone=args.backbone,
            backbone_layers=args.layers,
            context_length=context,
            token_length=8,
            max_steps=100,
            **shared,
        ),
        "auto_ets": lambda: tsllm.TextContext("auto_ets", prediction_length=longest, **shared),
        "auto": lambda: tsllm.TextContext(
            tsllm.AutoForecaster(backbone=None), prediction_length=longest, **shared
        ),
    }[method]()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        report = tsllm.ablate(
            made,
            data.y,
            data.X,
            text="text",
            variants=args.variants,
            horizons=list(data.horizons),
            baselines=["seasonal_naive"],
            seeds=args.seeds,
            season=data.season,
            stride=args.stride,
            max_history=None,
            **data.sizes,
        )
    for row in report.table.to_dict("records"):
        yield {
            "variant": row["variant"],
            "horizon": row["horizon"],
            "mse": row["mse"],
            "more_percent": row.get("difference_percent"),
            "lower": row.get("lower_percent"),
            "upper": row.get("upper_percent"),
        }
    yield {"verdict": report.verdict}


def _ridge(data: TextData, method: str, args: Any) -> Iterator[dict[str, Any]]:
    """Score the head alone: own lags, and the effects of texts in every variant."""
    values = data.y.to_numpy(dtype=float)
    known = values[: data.train]
    level, scale = np.nanmean(known), np.nanstd(known)
    values = (values - level) / scale
    for horizon in data.horizons:
        origins = np.arange(data.train + data.validation, len(values) - horizon + 1, args.stride)
        actual = values[origins[:, None] + np.arange(horizon)]
        own = _own_lags(values, data, horizon, origins)
        last = np.maximum.accumulate(np.where(np.isfinite(values), np.arange(len(values)), 0))
        steps = np.arange(horizon)
        back = origins[:, None] - data.season + steps % data.season
        forecasts = {
            "naive": [np.repeat(values[last[origins - 1]][:, None], horizon, axis=1)],
            "seasonal naive": [values[last[back]]],
            "none": [own],
        }
        for variant, spec, shuffle in _text_variants(data, args):
            frame = data.X if shuffle is None else shuffled_texts(data.X, ["text"], shuffle)
            future = data.known and variant != "past"
            added = _text_effects(values, frame["text"], data, horizon, origins, spec, future, args)
            forecasts.setdefault(variant, []).append(own + added)
        yield from _scored(forecasts, actual, origins, horizon)


def _text_variants(data: TextData, args: Any) -> Iterator[tuple[str, str, int | None]]:
    """List variants: name, language model, seed of the random order of texts."""
    yield "pretrained", args.backbone, None
    for seed in args.seeds:
        yield "random", with_random_weights(args.backbone, seed + UNNAMED_SEEDS), None
    yield "tfidf", "tfidf", None
    for seed in args.seeds:
        yield "shuffled", args.backbone, seed
    if data.known:
        yield "past", args.backbone, None


def _own_lags(values: np.ndarray, data: TextData, horizon: int, origins: np.ndarray) -> np.ndarray:
    """Forecast by a ridge regression for each step ahead on own lags: (origins, horizon)."""
    lags = max(20, data.season)
    filled = pd.Series(values).ffill().bfill().to_numpy()
    rows = np.arange(lags, data.train - horizon + 1)

    def read(at: np.ndarray) -> np.ndarray:
        past = filled[at[:, None] - 1 - np.arange(lags)]
        mean = past.mean(axis=1, keepdims=True)
        return np.concatenate([past - mean, mean], axis=1)

    means = filled[rows[:, None] - 1 - np.arange(lags)].mean(axis=1, keepdims=True)
    ahead = np.arange(horizon)
    fitted = choose_ridge(read(rows), filled[rows[:, None] + ahead] - means)
    own = filled[origins[:, None] - 1 - np.arange(lags)].mean(axis=1, keepdims=True)
    forecast: np.ndarray = own + read(origins) @ fitted.weights
    return forecast


def _text_effects(
    values: np.ndarray,
    texts: pd.Series,
    data: TextData,
    horizon: int,
    origins: np.ndarray,
    spec: str,
    future: bool,
    args: Any,
) -> np.ndarray:
    """Compute the effects of texts at the origins: (origins, horizon)."""
    rows = np.array([None if one is None or one != one else one for one in texts], dtype=object)
    train = data.train
    encoder = make_encoder(spec, rows[:train].tolist(), store=args.store, device="cpu")
    one, zero = np.ones(1), np.zeros(1)
    series = TextSeries(values[:train, None], one, [rows[:train]])
    window = max(20, data.season)
    effects = fit_texts(
        [series],
        encoder,
        n_known=int(future),
        window=window,
        horizon=horizon,
        season=data.season,
    )
    windows = [
        TextWindow(
            values[:origin, None],
            one,
            zero,
            [rows[max(0, origin - 4) : origin].tolist()],
            [rows[origin : origin + horizon].tolist()] if future else [],
        )
        for origin in origins
    ]
    found: np.ndarray = effects.effects(windows, horizon)[..., 0]
    return found


def _scored(
    forecasts: dict[str, list[np.ndarray]], actual: np.ndarray, origins: np.ndarray, horizon: int
) -> Iterator[dict[str, Any]]:
    """Score forecasts, and compare them with "pretrained", and that with no text."""

    def sums(name: str) -> np.ndarray:
        errors = np.stack([np.square(one - actual) for one in forecasts[name]])  # (seeds, n, h)
        seen = np.broadcast_to(np.isfinite(errors), errors.shape)
        both = np.stack([np.nansum(errors, axis=2), seen.sum(axis=2)], axis=1)
        return both[..., None, None].astype(float)  # (seeds, 2, windows, 1, 1)

    where = {"series": np.zeros(len(origins), int), "when": origins, "horizon": horizon}
    for name in forecasts:
        errors = sums(name)
        row = {"variant": name, "horizon": horizon}
        row["mse"] = float((errors[:, 0].sum(1) / errors[:, 1].sum(1)).mean())
        if name != "pretrained":
            found = estimate("mse", errors, sums("pretrained"), **where)
            row["more_percent"] = 100 * found.value[1]
            row["lower"], row["upper"] = 100 * found.lower[1], 100 * found.upper[1]
        yield row


# ---------------------------------------------------------------------- the sets


def _weather(folder: Path) -> TextData:
    frame = pd.read_parquet(folder / "weather_captioned_2014_2017.parquet")
    year = frame["timestamp"].dt.year
    index = pd.DatetimeIndex(frame["timestamp"], freq="6h")
    return TextData(
        pd.Series(frame["temperature"].to_numpy(), index=index, name="temperature"),
        pd.DataFrame({"text": frame["text"].to_numpy(dtype=object)}, index=index),
        int((year <= 2015).sum()),
        int((year == 2016).sum()),
        (8,),
        4,
        True,
    )


def _weather_no_temperature(folder: Path) -> TextData:
    data = _weather(folder)
    texts = [
        " ".join(one for one in split_sentences(text) if not TEMPERATURE.search(one))
        for text in data.X["text"]
    ]
    return TextData(**{**vars(data), "X": data.X.assign(text=texts)})


def _time_mmd(name: str, horizons: tuple[int, ...], season: int, freq: str) -> Any:
    def read(folder: Path) -> TextData:
        frame = pd.read_parquet(folder / f"text_{name}.parquet")
        stamps = pd.DatetimeIndex(frame["timestamp"])
        index = stamps.to_period(freq)
        values = pd.Series(frame["value"].to_numpy(dtype=float), index=index, name="value")
        texts = [
            None if one is None or str(one).strip().lower() in MISSING else str(one)
            for one in frame["text"]
        ]
        X = pd.DataFrame({"text": np.array(texts, dtype=object)}, index=index)
        whole = pd.period_range(index[0], index[-1], freq=index.freq)
        if len(whole) != len(values):  # weeks without a value
            values, X = values.reindex(whole), X.reindex(whole)
            X["text"] = X["text"].astype(object).where(X["text"].notna(), None)
        train, validation = int(0.7 * len(values)), int(0.1 * len(values))
        return TextData(values, X, train, validation, horizons, season, False)

    return read


def _before_test(data: TextData) -> TextData:
    """Return the data without their test part: the validation part is the one to score."""
    steps = data.train + data.validation
    spare = max(2, data.train // 5)
    return TextData(
        data.y.iloc[:steps],
        data.X.iloc[:steps],
        data.train - spare,
        spare,
        data.horizons,
        data.season,
        data.known,
    )


WEEKLY, MONTHLY = (12, 24, 36, 48), (6, 8, 10, 12)
SETS = {
    "weather": _weather,
    "weather_no_temperature": _weather_no_temperature,
    "energy": _time_mmd("energy", WEEKLY, 52, "W"),
    "health": _time_mmd("health", WEEKLY, 52, "W"),
    "socialgood": _time_mmd("socialgood", MONTHLY, 12, "M"),
    "traffic": _time_mmd("traffic", MONTHLY, 12, "M"),
}

if __name__ == "__main__":
    main()
