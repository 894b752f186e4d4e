"""The one copy of a backbone's weights in a process, and its digest."""

import hashlib
import json
import threading
from collections.abc import Hashable, Sequence
from typing import Any

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from tsllm.backbone.architectures import ARCHITECTURES, output_entries
from tsllm.backbone.synthetic import empty_model


class SharedBackbone:
    """Frozen modules, tokenizer and config that all handles of one key hold together.

    ``plain`` attends as the model was trained to, ``causal`` never sees later tokens. A decoder has
    one module for both; an encoder has two, which share every tensor.
    """

    def __init__(
        self,
        key: tuple[Hashable, ...],
        words: str,
        config: PretrainedConfig,
        tokenizer: PreTrainedTokenizerBase,
        plain: Any,
        causal: Any,
    ) -> None:
        self.key = key
        self.words = words
        self.config = config
        self.tokenizer = tokenizer
        self.plain = plain
        self.causal = causal
        self.word_embeddings: torch.Tensor = plain.get_input_embeddings().weight
        self.device = self.word_embeddings.device
        self.dtype = self.word_embeddings.dtype
        # The width of the states is that of the word embeddings, also for the OPT models that
        # compute in another width in between.
        self.hidden_size = self.word_embeddings.shape[1]
        self.natively_causal = not ARCHITECTURES[config.model_type].encoder
        self.max_positions: int | None = getattr(config, "max_position_embeddings", None)
        self.sliding_window: int | None = getattr(config, "sliding_window", None)
        self._digest: str | None = None
        self._lock = threading.Lock()

    @property
    def digest(self) -> str:
        """The canonical digest, computed at the first use."""
        with self._lock:
            if self._digest is None:
                self._digest = canonical_digest(self.plain, self.config, self.tokenizer)
            return self._digest

    @property
    def trained_whole(self) -> bool:
        """Whether each estimator trains all of it but the word embeddings."""
        return False

    def new_shell(self) -> nn.Module:
        """Make causal modules of one's own that share every tensor."""
        shell = empty_model(self.causal.config)
        share_tensors(self.causal, shell)
        return shell

    def tokenize(self, texts: Sequence[str], *, add_special_tokens: bool) -> list[list[int]]:
        """Tokenize texts, without cutting or padding them."""
        backend = self.tokenizer.backend_tokenizer
        # The tokenizer keeps padding and truncation as its own state, so callers take turns.
        with self._lock:
            backend.no_padding()
            backend.no_truncation()
            # Without the offsets that transformers' own call would compute: half the time.
            encoded = backend.encode_batch_fast(list(texts), add_special_tokens=add_special_tokens)
        return [one.ids for one in encoded]


def share_tensors(source: nn.Module, target: nn.Module) -> None:
    """Make a module tree without storage use the parameters and buffers of an equal tree."""
    modules = dict(source.named_modules())
    for name, module in target.named_modules():
        for attribute in module._parameters:
            module._parameters[attribute] = modules[name]._parameters[attribute]
        # Buffers outside the state dict (rotary frequencies, position ids) are needed as well.
        for attribute in module._buffers:
            module._buffers[attribute] = modules[name]._buffers[attribute]
    target.eval()


def canonical_digest(
    module: nn.Module, config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase
) -> str:
    """Hash weights, config and tokenizer; the same on every device and in every dtype.

    Weights are rounded to bfloat16 first, because a backbone that was loaded in bfloat16 knows no
    more of them.
    """
    digest = hashlib.sha256()
    entries = output_entries(config) | {"layers": config.num_hidden_layers}
    digest.update(json.dumps(entries, sort_keys=True).encode())
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    # How a caller pads and cuts is not part of the tokenizer.
    backend |= {"padding": None, "truncation": None}
    digest.update(json.dumps(backend, sort_keys=True).encode())
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        rounded = tensor.detach().to(dtype=torch.bfloat16, device="cpu").contiguous()
        digest.update(rounded.view(torch.uint8).reshape(-1).numpy())
    return digest.hexdigest()
