"""The causal pass through a language model, on embeddings, with a mask and a KV cache."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tsllm.backbone.devices import backbone_autocast
from tsllm.backbone.shared import SharedBackbone
from tsllm.errors import DataError


class Hidden(NamedTuple):
    """The output of the language model for a batch of tokens."""

    states: Tensor  # (batch, tokens, hidden) float32, on the backbone's device
    past: Any  # the KV cache; None without use_cache


def run_causally(
    shared: SharedBackbone,
    module: nn.Module,
    inputs_embeds: Tensor,
    past: Any,
    *,
    attention_mask: Tensor | None,
    positions: Tensor | None,
    use_cache: bool,
) -> Hidden:
    """Run a causal module: the shared one, or a private shell around it."""
    if inputs_embeds.ndim != 3 or inputs_embeds.shape[2] != shared.hidden_size:
        raise DataError(
            f"inputs_embeds has shape {tuple(inputs_embeds.shape)}; "
            f"it must be (batch, tokens, {shared.hidden_size})."
        )
    batch, tokens, _ = inputs_embeds.shape
    seen = 0 if past is None else past.get_seq_length()
    total = seen + tokens
    needed = total if positions is None else int(positions.max()) + 1
    if shared.max_positions is not None and needed > shared.max_positions:
        raise DataError(
            f"{needed} tokens are more than the backbone's {shared.max_positions} positions; use a "
            "shorter context_length or a longer token_length, so that there are fewer tokens, or a "
            "backbone with more positions."
        )
    if attention_mask is not None:
        if attention_mask.shape not in ((batch, total), (batch, tokens, total)):
            raise DataError(
                f"attention_mask has shape {tuple(attention_mask.shape)}; it must be "
                f"({batch}, {total}): one entry for each token, past ones included; or "
                f"({batch}, {tokens}, {total}), with an entry for each pair."
            )
        real = attention_mask.to(device=inputs_embeds.device, dtype=torch.bool)
        if real.ndim == 3:
            attention_mask = real[:, None]  # (batch, 1, tokens, past + tokens)
        else:
            # Attention weighs a masked token with exactly zero, which does not remove a NaN.
            inputs_embeds = inputs_embeds.masked_fill(~real[:, seen:, None], 0.0)
            attention_mask = _attention_pattern(real, seen)
        window = shared.sliding_window
        if attention_mask is not None and window is not None and total > window:
            raise DataError(
                f"{total} tokens, some of them masked, are more than the {window} that the "
                "backbone's sliding window spans; use a shorter context_length or a longer "
                "token_length."
            )
    # Given explicitly: OPT would otherwise count only the unmasked columns.
    if positions is None:
        positions = torch.arange(seen, total, device=inputs_embeds.device)[None]  # (1, tokens)
    cached = use_cache or past is not None
    with backbone_autocast(shared.device, shared.dtype):
        output = module(
            inputs_embeds=inputs_embeds.to(shared.dtype),
            attention_mask=attention_mask,
            position_ids=positions,
            past_key_values=past,
            use_cache=cached,
        )
    states = output.last_hidden_state.float()  # (batch, tokens, hidden)
    return Hidden(states, output.past_key_values if cached else None)


def _attention_pattern(real: Tensor, seen: int) -> Tensor | None:
    """Return the tokens that each new token attends to; None for all up to itself.

    transformers would build the same pattern from a two-dimensional mask, except that a masked
    token after masked ones would attend to nothing. On CUDA that gives infinite gradients in the
    whole row, so here every token attends to itself.
    """
    if bool(real.all()):
        return None
    columns = torch.arange(real.shape[1], device=real.device)  # (past + tokens,)
    rows = columns[seen:, None]  # (tokens, 1)
    visible = (columns <= rows) & real[:, None, None, :]  # (batch, 1, tokens, past + tokens)
    return visible | (columns == rows)
