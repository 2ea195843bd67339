"""A single tower over image and text: BLIP's image-text matching (Li et al., arXiv 2201.12086)."""

from __future__ import annotations

import torch
from torch import Tensor

from genret.components.rerankers.pictures import PictureConfig, PictureReranker, Words


class ITMReranker(PictureReranker):
    """BLIP's score that query and image match: the difference of its two logits."""

    class Config(PictureConfig):
        model: str = "Salesforce/blip-itm-base-coco"
        """A BLIP with a matching head: name on the model hub, local folder or registered weights."""
        enc_token: bool = False
        """Whether the text begins with BLIP's token [ENC], as in its authors' evaluation; otherwise [CLS], as in
        transformers."""

    architectures = ("BlipForImageTextRetrieval",)

    def encode(self, pixels: Tensor) -> Tensor:
        """(P, 3, S, S) → (P, T, D) patches"""
        states: Tensor = self.model.vision_model(pixel_values=pixels).last_hidden_state
        return states

    def judge(self, states: Tensor, words: Words) -> Tensor:
        ids = words.ids
        if self.config.enc_token:
            ids = ids.clone()
            ids[:, 0] = self.model.config.text_config.vocab_size - 1  # BLIP adds [DEC] and [ENC] to BERT's
        text = self.model.text_encoder(
            input_ids=ids, attention_mask=words.mask, encoder_hidden_states=states
        ).last_hidden_state
        with torch.autocast(text.device.type, enabled=False):  # bfloat16 logits would tie
            no, yes = self.model.itm_head(text[:, 0].float()).unbind(-1)
        difference: Tensor = yes - no
        return difference
