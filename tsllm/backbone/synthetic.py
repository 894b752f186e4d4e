"""Random backbones: the config of a shape, weights from a seed, and a byte-level tokenizer."""

from typing import TYPE_CHECKING

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import AutoConfig, PretrainedConfig, PreTrainedTokenizerFast

from tsllm.backbone.architectures import ARCHITECTURES, empty_model
from tsllm.backbone.own_generator import OwnGenerator
from tsllm.backbone.specs import BYTES, SMALLEST_VOCABULARY, SPECIAL_TOKENS

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def random_config(model_type: str, shape: dict[str, int]) -> PretrainedConfig:
    """Build the config of a random backbone."""
    architecture = ARCHITECTURES[model_type]
    hidden, heads = shape["hidden"], shape["heads"]
    bos, eos, pad = range(BYTES, SMALLEST_VOCABULARY)
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


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """Build a tokenizer of one token a byte, with a ``<bos>`` before each text."""
    # The byte-level alphabet has one printable character a byte; sorting gives the same ids in
    # every version of the library.
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {character: number for number, character in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    bos, eos, pad = SPECIAL_TOKENS
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A",
        pair=f"{bos} $A {bos} $B",
        special_tokens=[(bos, tokenizer.token_to_id(bos))],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=bos, eos_token=eos, pad_token=pad
    )
