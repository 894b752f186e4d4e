"""The weights of a model that was found: read or drawn, frozen, and moved to their device."""

from collections.abc import Hashable

import torch
from torch import nn
from transformers import AutoModel, PretrainedConfig, PreTrainedModel

from tsllm.backbone.architectures import (
    ATTENTION,
    causal_config,
    check_supported,
    empty_model,
    fuse_activations,
    keep_layers,
)
from tsllm.backbone.model_files import check_finite, check_report, check_vocabulary, check_weights
from tsllm.backbone.quantising import quantise
from tsllm.backbone.shared import SharedBackbone, share_tensors
from tsllm.backbone.sources import Source, quiet, unusable_config
from tsllm.backbone.synthetic import random_model
from tsllm.errors import DeviceMemoryError


def load_weights(
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


def _pretrained(source: Source, config: PretrainedConfig, dtype: torch.dtype) -> PreTrainedModel:
    """Read safetensors weights, and raise where they are not those of the config."""
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
    module: PreTrainedModel, dtype: torch.dtype, quantisation: str | None, device: torch.device
) -> None:
    """Cast the weights one at a time, to save memory, and move everything."""
    if quantisation is not None:
        quantise(module, quantisation, dtype, device)
    for parameter in module.parameters():
        if type(parameter) is nn.Parameter:  # and not quantised
            parameter.data = parameter.data.to(device=device, dtype=dtype)
    # Buffers keep their dtype: rotary frequencies rounded to bfloat16 would blur the positions.
    for part in module.modules():
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = buffer.to(device=device)
