"""The language model: found, loaded once per process, shared, frozen, and run causally.

``load_backbone`` is the only door to it; nothing else in tsllm imports transformers' model classes.
"""

from tsllm.backbone.devices import autocast_backbone, native_bfloat16, resolve_device
from tsllm.backbone.handle import Backbone, Hidden
from tsllm.backbone.loading import count_layers, load_backbone
from tsllm.backbone.packaged import DEFAULT_BACKBONE
from tsllm.backbone.private import PrivateBackbone, tuned

__all__ = [
    "DEFAULT_BACKBONE",
    "Backbone",
    "Hidden",
    "PrivateBackbone",
    "autocast_backbone",
    "count_layers",
    "load_backbone",
    "native_bfloat16",
    "resolve_device",
    "tuned",
]
