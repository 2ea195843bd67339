"""The one-tower paradigm: BLIP's image-text matching reads a query and one candidate image together.

Its network with random weights (BLIP base: ViT-B/16 at 384 pixels, BERT base with cross-attention). A query over N
images takes N forward passes; a few are timed and the time is multiplied.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from transformers import BlipConfig, BlipForImageTextRetrieval

from bench.models import QUERIES, queries
from genret.components.backbones.tokenizers import train_tokenizer

_TEXT = {"hidden_size": 768, "encoder_hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}
_VISION = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_attention_heads": 12,
    "image_size": 384,
    "patch_size": 16,
}


class Matcher:
    """One query and P images → P × 2 logits."""

    def __init__(self, device: torch.device, dtype: torch.dtype, pictures: int, layers: int = 12):
        torch.manual_seed(0)
        depth = {"num_hidden_layers": layers}
        config = BlipConfig(text_config=_TEXT | depth, vision_config=_VISION | depth, image_text_hidden_size=256)
        network = BlipForImageTextRetrieval(config).eval().requires_grad_(False)
        self._network: Any = network.to(device=device, dtype=dtype)
        self._tokenizer = train_tokenizer(QUERIES, 256)
        self._pixels = torch.rand(pictures, 3, 384, 384, device=device, dtype=dtype)
        with torch.no_grad():
            self._patches = self._network.vision_model(pixel_values=self._pixels).last_hidden_state

    def whole(self) -> Callable[[int], Any]:
        """With the image encoder, as the paper's 14,000 seconds per query must have been computed."""

        @torch.no_grad()
        def run(number: int) -> Any:
            return self._network(**self._words(number), pixel_values=self._pixels, use_itm_head=True)

        return run

    def kept(self) -> Callable[[int], Any]:
        """The images' patch states are precomputed: 0.9 MB for each image in half precision."""

        @torch.no_grad()
        def run(number: int) -> Any:
            read = self._network.text_encoder(**self._words(number), encoder_hidden_states=self._patches)
            return self._network.itm_head(read.last_hidden_state[:, 0])

        return run

    def _words(self, number: int) -> dict[str, Any]:
        batch = self._tokenizer(queries(1, number), return_tensors="pt").to(self._pixels.device)
        return {name: batch[name].expand(len(self._pixels), -1) for name in ("input_ids", "attention_mask")}
