"""The language models of the paper's Table 6, by its names: backbones with other defaults."""

from __future__ import annotations

from typing import Literal

from genret.components.backbones.llama import LlamaBackbone
from genret.components.backbones.llama_lora import Lora
from genret.components.backbones.t5 import T5Backbone


class T5Base(T5Backbone):
    """T5-base, all weights trained (220 million): the paper's choice."""

    class Config(T5Backbone.Config):
        model: str | None = "google-t5/t5-base"
        """Name on the model hub, local folder or registered weights."""


class T5Large(T5Backbone):
    """T5-large, all weights trained (770 million)."""

    class Config(T5Backbone.Config):
        model: str | None = "google-t5/t5-large"
        """Name on the model hub, local folder or registered weights."""


class T5XL(T5Backbone):
    """T5-XL, all weights trained (3 billion)."""

    class Config(T5Backbone.Config):
        model: str | None = "google-t5/t5-3b"
        """Name on the model hub, local folder or registered weights."""


class Llama7BLora(LlamaBackbone):
    """LLaMA-7b through low-rank adapters (7 billion frozen)."""

    class Config(LlamaBackbone.Config):
        model: str | None = "huggyllama/llama-7b"
        """Name on the model hub, local folder or registered weights."""
        dtype: Literal["float32", "bfloat16"] = "bfloat16"
        """Data type of the pretrained weights; bfloat16 takes half the memory and needs `lora`."""
        lora: Lora | None = Lora()
        """Low-rank adapters beside frozen weights; null trains all weights."""
        save: Literal["merged", "adapter"] = "adapter"
        """With `lora`: merged saves one plain model; adapter saves only what was trained, and needs `model`."""
        gradient_checkpointing: bool = True
        """Recomputes activations in the backward pass (gradient checkpointing): slower, with less memory."""
