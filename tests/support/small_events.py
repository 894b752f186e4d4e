"""Small event estimators and streams that many tests share."""

from tsllm.datasets import make_hawkes
from tsllm.events import (
    HawkesForecaster,
    NaiveEventForecaster,
    PromptTPP,
    ZeroShotEventForecaster,
)

TINY = "random:gpt2?hidden=16&layers=1&heads=2&positions=128"
SMALL = {
    "hidden": 8,
    "layers": 1,
    "heads": 2,
    "components": 3,
    "max_epochs": 2,
    "batch_size": 4,
    "head_rank": 0,
    "base_update": "freeze",
    "device": "cpu",
    "random_state": 0,
}
#: Every encoder with every decoder that it goes with.
PAIRS = [
    (encoder, decoder)
    for encoder in ("attention", "aaren", "llm", "llm-aaren", "llm-full")
    for decoder in ("lognormal_mixture", "rmtpp", "exponential", "attnhp")
    if decoder != "attnhp" or encoder in ("attention", "llm")
]


def small_prompttpp(encoder="attention", **parameters):
    """A PromptTPP that trains in no time; "llm-aaren" is "llm" over the encoder "aaren"."""
    own = {"backbone": TINY} if encoder.startswith("llm") else {}
    if encoder == "llm-aaren":
        encoder, own = "llm", own | {"text_encoder": "aaren"}
    return PromptTPP(encoder, **(SMALL | own | parameters))


def small_estimators():
    """One of each event estimator, and of each kind of PromptTPP, by name."""
    named = {
        "hawkes": HawkesForecaster(max_steps=5, random_state=0),
        "naive": NaiveEventForecaster(types="markov", random_state=0),
        "zero shot": ZeroShotEventForecaster(random_state=0),
        "attention auto": small_prompttpp(base_update="auto"),
        "attention shared": small_prompttpp(prompt_mode="shared", max_slots=3, top_slots=2),
        "attention alone": small_prompttpp(prompt_mode="none", base_update="full"),
        "llm-full lora": small_prompttpp("llm-full", lora={"r": 2, "dropout": 0.1}),
        "attention heads": small_prompttpp(head_rank=2, slots_per_slice=2),
    }
    return named | {
        f"{encoder} {decoder}": small_prompttpp(encoder, decoder=decoder)
        for encoder, decoder in PAIRS
    }


def stream(t_end=24, n_sequences=3, seed=0):
    """A stream of two types in several sequences with known windows."""
    return make_hawkes(
        [0.5, 0.3],
        [[0.3, 0.1], [0.2, 0.4]],
        [2.0, 1.5],
        t_end=t_end,
        n_sequences=n_sequences,
        type_names=["bark", "bite"],
        random_state=seed,
    ).events


def halves(**options):
    """Two slices of such a stream."""
    return stream(**options).split((0.5, 0.5))
