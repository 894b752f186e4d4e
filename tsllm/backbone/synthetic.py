"""Random backbones: a spec's shape, its weights from a seed, and a byte-level tokenizer."""

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from torch.overrides import TorchFunctionMode
from transformers import (
    AutoConfig,
    PretrainedConfig,
    PreTrainedTokenizerFast,
)

from tsllm.backbone.architectures import ARCHITECTURES, ATTENTION, fuse_activations
from tsllm.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_SPECIAL_TOKENS = ("<bos>", "<eos>", "<pad>")
_BYTES = 256
_SMALLEST_VOCABULARY = _BYTES + len(_SPECIAL_TOKENS)
_SHAPE = {"hidden": 64, "layers": 2, "heads": 4, "positions": 1024, "vocab": _SMALLEST_VOCABULARY}
_OPTIONAL_SHAPE = ("intermediate", "kv_heads")
# Largest random backbone of a saved model: about a gigabyte, drawn in some seconds.
_MOST_NUMBERS, _MOST_LAYERS = 2**28, 1000
# By name: transformers swaps the functions of torch.nn.init for its own while it initialises.
_DRAWS = ("normal_", "uniform_", "trunc_normal_", "kaiming_uniform_", "kaiming_normal_")


class OwnGenerator(TorchFunctionMode):
    """Let initialisers draw from a generator of their own, here and in this thread only.

    They know only torch's global generator, which belongs to the caller and to other threads.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._generator = torch.Generator().manual_seed(seed)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call ``func``, a draw with our generator."""
        kwargs = dict(kwargs or {})
        if getattr(func, "__name__", "") in _DRAWS:
            kwargs["generator"] = self._generator
        return func(*args, **kwargs)


class RandomSpec(NamedTuple):
    """A parsed ``random:...`` spec: a shape of our own, or the config of another source."""

    seed: int
    model_type: str | None  # None: ``source`` gives config and tokenizer
    source: str | None
    shape: dict[str, int]


def parse_random(spec: str) -> RandomSpec:
    """Parse ``random:<model_type>?hidden=64&...`` or ``random:<id or path>?seed=0``."""
    body, _, query = spec.removeprefix("random:").partition("?")
    known = body in ARCHITECTURES
    allowed = ("seed", *_SHAPE, *_OPTIONAL_SHAPE) if known else ("seed",)
    given: dict[str, int] = {}
    for part in query.split("&") if query else []:
        name, _, value = part.partition("=")
        if name not in allowed:
            raise DataError(
                f"backbone {spec!r}: {name!r} is not an entry of such a spec; use {_words(allowed)}"
                + ("." if known else f" (shapes go with one of {_words(sorted(ARCHITECTURES))}).")
            )
        if name in given:
            raise DataError(f"backbone {spec!r}: {name!r} is given twice; keep one of them.")
        if not (value.isascii() and value.isdecimal()):
            raise DataError(f"backbone {spec!r}: {name}={value!r} must be a whole number.")
        given[name] = int(value)
    seed = given.pop("seed", 0)
    if not body:
        raise DataError(
            f"backbone {spec!r} names no model; write 'random:gpt2?hidden=64&layers=2&seed=0' or "
            "'random:<Hugging Face id or directory>?seed=0'."
        )
    if seed >= 2**63:
        raise DataError(f"backbone {spec!r}: seed={seed} is too large; keep it below 2**63.")
    if not known:
        return RandomSpec(seed, None, body, {})
    shape = _SHAPE | given
    _check_shape(spec, body, shape)
    return RandomSpec(seed, body, None, shape)


def check_random_size(spec: str) -> None:
    """Check that random weights that a saved model names take little time and memory."""
    random = parse_random(spec) if spec.startswith("random:") else None
    if random is None or random.model_type is None:
        return
    shape, hidden = random.shape, random.shape["hidden"]
    inner = shape.get("intermediate", 4 * hidden)
    numbers = hidden * (shape["vocab"] + shape["positions"])
    numbers += shape["layers"] * hidden * (4 * hidden + 3 * inner)
    if numbers > _MOST_NUMBERS or shape["layers"] > _MOST_LAYERS:
        raise DataError(
            f"the saved model names the backbone {spec!r}, which has about {numbers:.1e} random "
            "weights: pass it as backbone=... if this is what you want"
        )


#: Added to the seeds of random weights, so that they differ from the backbones that users name.
UNNAMED_SEEDS = 1_000_000


def with_random_weights(spec: str, seed: int) -> str:
    """Return the spec of the same model with random weights of this seed.

    Examples
    --------
    >>> with_random_weights("openai-community/gpt2", 3)
    'random:openai-community/gpt2?seed=3'
    >>> with_random_weights("random:gpt2?seed=0&hidden=8", 3)
    'random:gpt2?hidden=8&seed=3'
    """
    body, _, query = spec.removeprefix("random:").partition("?")
    kept = [part for part in query.split("&") if part and not part.startswith("seed=")]
    return f"random:{body}?{'&'.join([*kept, f'seed={seed}'])}"


def random_config(model_type: str, shape: dict[str, int]) -> PretrainedConfig:
    """Build the config of a random backbone."""
    architecture = ARCHITECTURES[model_type]
    hidden, heads = shape["hidden"], shape["heads"]
    bos, eos, pad = range(_BYTES, _SMALLEST_VOCABULARY)
    entries = {
        "hidden_size": hidden,
        "num_hidden_layers": shape["layers"],
        "num_attention_heads": heads,
        "max_position_embeddings": shape["positions"],
        "vocab_size": shape["vocab"],
        "bos_token_id": bos,
        "eos_token_id": eos,
        "pad_token_id": pad,
        architecture.intermediate: shape.get("intermediate", 4 * hidden),
    }
    if architecture.kv_heads:
        entries |= {
            "num_key_value_heads": shape.get("kv_heads", heads),
            "head_dim": hidden // heads,
        }
    if model_type == "opt":
        entries["word_embed_proj_dim"] = hidden
    return AutoConfig.for_model(model_type, **entries)


def random_model(config: PretrainedConfig, seed: int) -> "PreTrainedModel":
    """Initialise a model on the CPU in float32, the same one for one seed on every machine."""
    model = empty_model(config)
    model.to_empty(device="cpu")
    with OwnGenerator(seed):
        model.init_weights()
    return model


def empty_model(config: PretrainedConfig) -> "PreTrainedModel":
    """Build the modules of a config without storage for their tensors."""
    # Imported here: it takes half of the start of a process without a language model.
    from transformers import AutoModel

    # BERT's pooler is of no use here and is missing from many checkpoints.
    options = {"add_pooling_layer": False} if ARCHITECTURES[config.model_type].encoder else {}
    with torch.device("meta"):
        model = AutoModel.from_config(
            config, dtype=torch.float32, attn_implementation=ATTENTION, **options
        )
    fuse_activations(model)
    return model


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """Build a tokenizer of one token a byte, with a ``<bos>`` before each text."""
    # The byte-level alphabet has one printable character a byte; sorting gives the same ids in
    # every version of the library.
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {character: number for number, character in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(_SPECIAL_TOKENS))
    bos, eos, pad = _SPECIAL_TOKENS
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A",
        pair=f"{bos} $A {bos} $B",
        special_tokens=[(bos, tokenizer.token_to_id(bos))],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=bos, eos_token=eos, pad_token=pad
    )


def _check_shape(spec: str, model_type: str, shape: dict[str, int]) -> None:
    """Check that the architecture can have a shape."""
    architecture = ARCHITECTURES[model_type]
    for name, value in shape.items():
        if value < 1:
            raise DataError(f"backbone {spec!r}: {name}={value} must be at least 1.")
    hidden, heads = shape["hidden"], shape["heads"]
    if hidden % heads or (architecture.rotary and hidden // heads % 2):
        even = "an even multiple" if architecture.rotary else "a multiple"
        raise DataError(f"backbone {spec!r}: hidden={hidden} must be {even} of heads={heads}.")
    if "kv_heads" in shape and not architecture.kv_heads:
        raise DataError(
            f"backbone {spec!r}: {model_type!r} has as many key/value heads as heads; "
            "leave kv_heads out."
        )
    if heads % shape.get("kv_heads", heads):
        raise DataError(
            f"backbone {spec!r}: heads={heads} must be a multiple of kv_heads={shape['kv_heads']}."
        )
    if shape["vocab"] < _SMALLEST_VOCABULARY:
        raise DataError(
            f"backbone {spec!r}: vocab={shape['vocab']} is below the {_SMALLEST_VOCABULARY} tokens "
            "of the byte-level tokenizer."
        )


def _words(names: tuple[str, ...] | list[str]) -> str:
    """Join names for a message."""
    return ", ".join(names)
