"""What the spec of a backbone says, by its text alone: no model is looked for."""

from pathlib import Path
from typing import NamedTuple

from tsllm.backbone.architectures import ARCHITECTURES
from tsllm.errors import DataError

#: Of the byte-level tokenizer of random backbones.
SPECIAL_TOKENS = ("<bos>", "<eos>", "<pad>")
BYTES = 256
SMALLEST_VOCABULARY = BYTES + len(SPECIAL_TOKENS)
_SHAPE = {"hidden": 64, "layers": 2, "heads": 4, "positions": 1024, "vocab": SMALLEST_VOCABULARY}
_OPTIONAL_SHAPE = ("intermediate", "kv_heads")
# Largest random backbone of a saved model: about a gigabyte, drawn in some seconds.
_MOST_NUMBERS, _MOST_LAYERS = 2**28, 1000


def absolute_spec(spec: str) -> str:
    """Write the local path of a spec in full, so that it holds in any working directory.

    Examples
    --------
    >>> absolute_spec("random:gpt2?seed=3")
    'random:gpt2?seed=3'
    """
    if spec.startswith("layer:"):
        kind, separator, like = spec.partition("?like=")
        return f"{kind}{separator}{absolute_spec(like)}"
    if spec.startswith("random:"):
        body, separator, query = spec.removeprefix("random:").partition("?")
        # The name of an architecture is never a directory's.
        body = body if body in ARCHITECTURES else absolute_spec(body)
        return f"random:{body}{separator}{query}"
    path = local_path(spec)
    return str(path.absolute()) if spec and path is not None and path.exists() else spec


def local_path(spec: str) -> Path | None:
    """Return a spec as a path, None where no path can have such a name."""
    try:
        path = Path(spec).expanduser()
        path.resolve().exists()
    except (OSError, RuntimeError, ValueError):  # too long, an unknown ~user, a null byte
        return None
    return path


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
    if shape["vocab"] < SMALLEST_VOCABULARY:
        raise DataError(
            f"backbone {spec!r}: vocab={shape['vocab']} is below the {SMALLEST_VOCABULARY} tokens "
            "of the byte-level tokenizer."
        )


def _words(names: tuple[str, ...] | list[str]) -> str:
    """Join names for a message."""
    return ", ".join(names)
