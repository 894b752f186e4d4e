"""What a checkpoint of the AutoTimes authors' code holds, and whether it fits a model."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor, nn

OFFICIAL_KEY = re.compile(r"add_scale|(encoder|decoder)\.(layers\.\d+\.)?(weight|bias)")
OFFICIAL_LLM_PREFIXES = ("gpt2.", "llama.", "opt.", "model.")


def encoder_and_decoder(
    state_dict: Mapping[str, Tensor],
) -> tuple[dict[str, Tensor], list[Tensor]]:
    """Pick what the authors trained, and leave the LLM's own weights aside.

    Parameters
    ----------
    state_dict : mapping of str to Tensor
        The checkpoint; a leading ``module.`` of its keys (distributed training) is taken off.

    Returns
    -------
    trained : dict of str to Tensor
        ``encoder.*``, ``decoder.*`` and, with timestamps, ``add_scale``.
    weights : list of Tensor
        Those of the encoder's linear layers, ``(out, in)`` each, first to last.

    Raises
    ------
    ValueError
        For keys that are neither these nor the LLM's, and where the encoder has no weights.
    """
    named = {key.removeprefix("module."): tensor for key, tensor in state_dict.items()}
    trained = {key: tensor for key, tensor in named.items() if OFFICIAL_KEY.fullmatch(key)}
    unknown = [
        key for key in named if key not in trained and not key.startswith(OFFICIAL_LLM_PREFIXES)
    ]
    if unknown:
        raise ValueError(
            f"state_dict holds keys that AutoTimes does not know: {sorted(unknown)}; known "
            f"are encoder.*, decoder.*, add_scale and the LLM's, {OFFICIAL_LLM_PREFIXES}"
        )
    # By length first, so that encoder.layers.12.weight follows encoder.layers.9.weight.
    names = sorted(trained, key=lambda key: (len(key), key))
    weights = [trained[key] for key in names if re.fullmatch(r"encoder\..*weight", key)]
    if not weights:
        raise ValueError(f"state_dict has no weights of the encoder; its keys: {sorted(named)}")
    return trained, weights


def check_fit(trained: Mapping[str, Tensor], model: nn.Module) -> None:
    """Refuse tensors that are not the model's own in name and shape; its LLM's do not count.

    Raises
    ------
    ValueError
        Naming each tensor that does not fit, its shape and the right one.
    """
    state = model.state_dict()
    expected = {key: state[key].shape for key in state if not key.startswith("backbone.")}
    given = {key: tensor.shape for key, tensor in trained.items()}
    wrong = {key for key in given | expected if given.get(key) != expected.get(key)}
    if wrong:
        details = [f"{key} {given.get(key)}, not {expected.get(key)}" for key in sorted(wrong)]
        raise ValueError(f"state_dict's tensors do not fit together: {'; '.join(details)}")
