"""The one copy of a backbone's weights in a process, and its digest."""

from __future__ import annotations

import copy
import hashlib
import json
import threading
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from tsllm.backbone.architectures import ARCHITECTURES, empty_model, output_entries
from tsllm.backbone.last_token import can_keep_last_token, keep_last_token
from tsllm.backbone.prepared import Origin

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase


class SharedBackbone:
    """The frozen modules, tokenizer and config that all handles of one key share.

    ``plain`` attends as the model was trained, ``causal`` never to later tokens. A decoder has one
    module for both; an encoder has two, which share every tensor.
    """

    def __init__(
        self,
        key: tuple[Hashable, ...],
        words: str,
        config: PretrainedConfig,
        tokenizer: PreTrainedTokenizerBase,
        plain: Any,
        causal: Any,
        *,
        origin: Origin | None = None,
        quantisation: str | None = None,
    ) -> None:
        self.key = key
        self.words = words
        self.config = config
        self.tokenizer = tokenizer
        self.plain = plain
        self.causal = causal
        self.origin = origin
        self.quantisation = quantisation
        self.word_embeddings: torch.Tensor = plain.get_input_embeddings().weight
        self.device = self.word_embeddings.device
        self.dtype = self.word_embeddings.dtype
        # The states have the width of the word embeddings, also in the OPT models that use
        # another width in between.
        self.hidden_size = self.word_embeddings.shape[1]
        self.largest_token = max(tokenizer.get_vocab().values(), default=0)
        self.natively_causal = not ARCHITECTURES[config.model_type].encoder
        self.max_positions: int | None = getattr(config, "max_position_embeddings", None)
        self.sliding_window: int | None = getattr(config, "sliding_window", None)
        self._digest: str | None = None
        self._last: dict[bool, Any] = {}
        self._lock = threading.Lock()

    @property
    def digest(self) -> str:
        """Return the canonical digest, computed at the first use."""
        with self._lock:
            if self._digest is None:
                self._digest = canonical_digest(
                    self.plain, self.config, self.tokenizer, self.quantisation
                )
            return self._digest

    @property
    def parameter_count(self) -> int:
        """Return the number of weights."""
        # Four bits are stored two in a byte, so the shapes are those of the architecture.
        module = self.plain if self.quantisation is None else empty_model(self.config)
        return sum(parameter.numel() for parameter in module.parameters())

    @property
    def weight_bytes(self) -> int:
        """Return the memory of the weights."""
        return sum(parameter.nbytes for parameter in self.plain.parameters())

    @property
    def trained_whole(self) -> bool:
        """Return True where each estimator trains all but the word embeddings."""
        return False

    def new_shell(self) -> nn.Module:
        """Build new causal modules that share every tensor."""
        shell = empty_model(self.causal.config)
        share_tensors(self.causal, shell)
        if self.quantisation is not None:
            setattr(shell, f"is_loaded_in_{self.quantisation[3:]}bit", True)  # peft looks for it
        return shell

    def last_token(self, *, causal: bool) -> Any:
        """Return modules whose last layer computes one token only; they share every tensor.

        For an architecture that has no such layer they compute all tokens. ``causal``: return the
        causal modules; else the modules as the model was trained.
        """
        causal = causal or self.natively_causal
        whole = self.causal if causal else self.plain
        with self._lock:
            if causal not in self._last:
                possible = can_keep_last_token(self.config.model_type)
                if self.quantisation is not None or self.trained_whole or not possible:
                    self._last[causal] = whole
                else:
                    shell = empty_model(whole.config)
                    share_tensors(whole, shell)
                    keep_last_token(shell, self.config.model_type)
                    self._last[causal] = shell
            return self._last[causal]

    def tokenize(self, texts: Sequence[str], *, add_special_tokens: bool) -> list[list[int]]:
        """Tokenise texts, without cutting or padding them."""
        backend = self.tokenizer.backend_tokenizer
        # Padding and truncation are the tokenizer's own state, hence the lock.
        with self._lock:
            backend.no_padding()
            backend.no_truncation()
            # transformers' own call would also compute offsets, in twice the time.
            encoded = backend.encode_batch_fast(list(texts), add_special_tokens=add_special_tokens)
        return [one.ids for one in encoded]


def share_tensors(source: nn.Module, target: nn.Module) -> None:
    """Set the parameters and buffers of one module tree on an equal tree without storage.

    Quantised layers, which the tree without storage does not have, are copied without their
    tensors.
    """
    modules = dict(source.named_modules())
    for name, module in list(target.named_modules()):
        if type(module) is not type(modules[name]) and not list(module.children()):
            target.set_submodule(name, _shallow_copy(modules[name]))
            continue
        for attribute in module._parameters:
            module._parameters[attribute] = modules[name]._parameters[attribute]
        # Also those outside the state dict: rotary frequencies, position ids.
        for attribute in module._buffers:
            module._buffers[attribute] = modules[name]._buffers[attribute]
    target.eval()


def _shallow_copy(module: nn.Module) -> nn.Module:
    """Copy a layer that shares its tensors and can be given other ones."""
    copied = copy.copy(module)
    copied._parameters = dict(module._parameters)
    copied._buffers = dict(module._buffers)
    return copied


def canonical_digest(
    module: nn.Module,
    config: PretrainedConfig,
    tokenizer: PreTrainedTokenizerBase,
    quantisation: str | None = None,
) -> str:
    """Hash weights, config and tokenizer, with one result on every device and in every dtype.

    Weights are rounded to bfloat16 first, since a backbone may be loaded in bfloat16. Weights that
    are quantised on the device (``quantisation``) are others than those that they were made of.
    """
    digest = hashlib.sha256()
    entries = output_entries(config) | {"layers": config.num_hidden_layers}
    if quantisation is not None:
        entries["quantisation"] = quantisation
    digest.update(json.dumps(entries, sort_keys=True).encode())
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    # A caller's padding and truncation are no part of the tokenizer.
    backend |= {"padding": None, "truncation": None}
    digest.update(json.dumps(backend, sort_keys=True).encode())
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        rounded = tensor.detach().to(dtype=torch.bfloat16, device="cpu").contiguous()
        digest.update(rounded.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
