"""Small PromptTPP models of every kind, and event sequences for them."""

from functools import cache

import numpy as np
import torch

from tsllm.adapters.events.batch import pad_sequences
from tsllm.adapters.events.encoders.llm import mean_token_embeddings
from tsllm.adapters.events.prompttpp import PromptTPPModel
from tsllm.backbone import load_backbone

N_TYPES = 4
#: Every encoder; "llm-full short" reads so few events at once that it starts again several times.
ENCODERS = ["attention", "aaren", "attnhp", "llm", "llm aaren", "llm-full", "llm-full short"]


@cache
def language_model():
    return load_backbone("random:gpt2?hidden=16&layers=1&heads=2&seed=0", device="cpu")


def build_model(name="attention", *, slots=0, seed=0, backbone=None, **settings):
    """Make a model in evaluation mode; its prompt slots have keys among which queries divide."""
    small = {"hidden": 8, "layers": 2, "heads": 2, "components": 3, "time_features": 8}
    small |= {"prompt_length": 3, "query_size": 16, "head_rank": 0, "min_context": 2}
    settings = small | settings
    encoder, _, rest = name.partition(" ")
    torch.manual_seed(seed)
    if encoder == "attnhp":
        encoder, settings["decoder"] = "attention", "attnhp"
    elif encoder == "llm":
        settings["text_encoder"] = rest or "attention"
        settings["type_vectors"] = torch.randn(N_TYPES, 12)
    elif encoder == "llm-full":
        backbone = language_model() if backbone is None else backbone
        texts = ["rain", "hail storm", "sun", "thunder"]
        settings["type_vectors"] = mean_token_embeddings(backbone, texts)
        settings |= {"backbone": backbone, "max_events": 5 if rest else None}
    model = PromptTPPModel(N_TYPES, encoder=encoder, **settings).eval()
    queries = model.slice_queries([batch_of(sequences(6, 30))])
    for number in range(slots):
        # One of the queries each, so that sequences move from slot to slot.
        model.open_slots(queries[7 * number :: 41][:1])
    return model


def sequences(count, events, seed=0):
    """Draw sequences of (gaps, types); ``events`` may be a list, of one number each."""
    generator = np.random.default_rng(seed)
    lengths = [events] * count if isinstance(events, int) else events
    return [
        (generator.exponential(size=n) + 0.01, generator.integers(0, N_TYPES, n)) for n in lengths
    ]


def batch_of(rows, *, known=True, tails=1.0):
    """Put sequences into a batch; ``known``: whether their windows' starts are."""
    return pad_sequences(
        [gaps for gaps, _ in rows],
        [types for _, types in rows],
        first_known=np.broadcast_to(known, len(rows)),
        tails=np.broadcast_to(tails, len(rows)).astype(float),
    )
