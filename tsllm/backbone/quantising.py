"""Frozen weights in 8 or 4 bits, with bitsandbytes, so that a large model fits on a small card."""

import logging

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

_OUTLIERS = 6.0  # features above this are multiplied in 16 bits


def quantise(
    module: nn.Module, quantisation: str, dtype: torch.dtype, device: torch.device
) -> None:
    """Replace the linear layers of a model by quantised ones on the device, one at a time.

    Word embeddings, norms and biases stay as they are.

    Parameters
    ----------
    module : Module
        The model, on the CPU.
    quantisation : {"int8", "int4"}
        8 bits as in LLM.int8, or 4 bits in the normal-float format.
    dtype : torch.dtype
        The type in which the layers compute.
    device : torch.device
        Where the quantised layers go.

    References
    ----------
    Dettmers et al. (2022), "LLM.int8(): 8-bit Matrix Multiplication for Transformers at Scale",
    arXiv 2208.07339. Dettmers et al. (2023), "QLoRA: Efficient Finetuning of Quantized LLMs", arXiv
    2305.14314, section 3.
    """
    import bitsandbytes

    # It would tell in every training step that LLM.int8 multiplies in 16 bits.
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
    for name, layer in list(module.named_modules()):
        if not isinstance(layer, nn.Linear | Conv1D):
            continue
        # GPT-2 stores its matrices transposed.
        weight = layer.weight.data.T if isinstance(layer, Conv1D) else layer.weight.data
        weight = weight.to(dtype).contiguous()
        outputs, inputs = weight.shape
        has_bias = layer.bias is not None
        if quantisation == "int8":
            replaced = bitsandbytes.nn.Linear8bitLt(
                inputs, outputs, bias=has_bias, has_fp16_weights=False, threshold=_OUTLIERS
            )
            replaced.weight = bitsandbytes.nn.Int8Params(
                weight, requires_grad=False, has_fp16_weights=False
            )
        else:
            replaced = bitsandbytes.nn.Linear4bit(
                inputs, outputs, bias=has_bias, compute_dtype=dtype, quant_type="nf4"
            )
            replaced.weight = bitsandbytes.nn.Params4bit(
                weight, requires_grad=False, quant_type="nf4"
            )
        if has_bias:
            replaced.bias = nn.Parameter(layer.bias.data.to(dtype), requires_grad=False)
        replaced = replaced.to(device)  # rounds the weights
        if quantisation == "int8":
            # The first pass would do it, and two threads at once would disturb each other.
            replaced.init_8bit_state()
        module.set_submodule(name, replaced)
