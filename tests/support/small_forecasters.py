"""Small forecasters and series that many tests share."""

import functools

import numpy as np
import pandas as pd

from tsllm.forecasters import METHODS

TINY = "random:gpt2?hidden=16&layers=1&heads=2&positions=256"

#: What makes each method small; the contract tests run on all of them.
SMALL = {
    "auto": {
        "candidates": ["seasonal_naive", "theta", "autotimes"],
        "backbone": TINY,
        "n_origins": 3,
        "batch_size": 32,
        "random_state": 0,
    },
    "aaren": {
        "context_length": 12,
        "patch_length": 3,
        "hidden": 16,
        "layers": 2,
        "heads": 2,
        "feedforward": 16,
        "max_steps": 4,
        "batch_size": 32,
        "random_state": 0,
    },
    "autotimes": {
        "backbone": TINY,
        "context_length": 12,
        "token_length": 6,
        "max_steps": 4,
        "batch_size": 32,
        "random_state": 0,
    },
    "timecma": {
        "backbone": TINY,
        "context_length": 12,
        "channel": 8,
        "heads": 2,
        "decoder_layers": 1,
        "feedforward": 16,
        "max_steps": 4,
        "batch_size": 32,
        "random_state": 0,
    },
    "s2ip": {
        "backbone": TINY,
        "context_length": 12,
        "prediction_length": 6,
        "patch_length": 4,
        "trend_length": 4,
        "seasonal_length": 6,
        "pool_size": 20,
        "prompt_length": 2,
        "max_steps": 4,
        "batch_size": 32,
        "random_state": 0,
    },
}
#: Per method, settings under which it computes in another way.
VARIANTS = {
    "auto": [{}, {"candidates": ["seasonal_naive", "dlinear"], "backbone": None}],
    "aaren": [
        {},
        {"loss": "quantile", "quantiles": (0.1, 0.5, 0.9), "normalisation": "anchored"},
        {"mixer": "mingru", "memory": "full"},
        {"memory": "window", "query": "token"},
        {"memory": "reencode", "mixer": "attention", "normalisation": "window"},
        {"backbone": TINY, "soft_prompt_length": 2},
        {"backbone": TINY, "soft_prompt_length": 3, "lora": {"r": 2, "alpha": 4, "dropout": 0.1}},
    ],
    "autotimes": [
        {},
        {"loss": "quantile", "quantiles": (0.1, 0.5, 0.9)},
        {"timestamps": True, "rollout": "cached"},
        {"mlp_layers": 2, "mlp_hidden": 8, "dropout": 0.5},
        {"backbone": None},
        {"lora": {"r": 2, "alpha": 4, "dropout": 0.1}},
    ],
    "timecma": [
        {},
        {"loss": "quantile", "quantiles": (0.1, 0.5, 0.9)},
        {"value_format": "series", "dropout": 0.5},
        {"prediction_length": 3, "window_stride": 2},
        {"backbone": None},
    ],
    "s2ip": [
        {},
        {"loss": "quantile", "quantiles": (0.1, 0.5, 0.9), "anchor_pool": "clusters"},
        {"anchor_pool": "prototypes", "tune": ("layer_norms",), "dropout": 0.5},
        {"backbone": None},
        {"lora": {"r": 2, "alpha": 4, "dropout": 0.1}, "tune": ()},
    ],
}
#: The methods that can tune the language model, and what they need for it.
TUNED = {
    "aaren": {"backbone": TINY, "soft_prompt_length": 2},
    "autotimes": {},
    "s2ip": {"tune": ()},
}
METHOD_VARIANTS = [(method, variant) for method in SMALL for variant in VARIANTS[method]]


def small(method, **parameters):
    return METHODS[method](**(SMALL[method] | parameters))


tiny = functools.partial(small, "autotimes")


def season(steps, *, phase=0.0, level=10.0, seed=0):
    noise = np.random.default_rng(seed).normal(0, 0.1, steps)
    return level + np.sin(np.arange(steps) * 2 * np.pi / 12 + phase) + noise


def panel(lengths, ids, *, start="2024-01-01", freq="D"):
    frames = [
        pd.DataFrame(
            {"value": season(n, phase=i, level=100.0 * (i + 1), seed=i)},
            index=pd.MultiIndex.from_product(
                [[name], pd.date_range(start, periods=n, freq=freq)], names=["id", "time"]
            ),
        )
        for i, (n, name) in enumerate(zip(lengths, ids))
    ]
    return pd.concat(frames)
