"""Reverse re-ranking by log p(query | image) (TIGeR, Qu et al., arXiv 2406.05814).

A generator of identifiers favours frequent ones; log p(query | image) does not.
"""

from __future__ import annotations

import torch
from torch import Tensor

from genret.api import Candidates
from genret.components.rerankers.pictures import PictureConfig, PictureReranker, Words
from genret.errors import GenretError


class ReverseReranker(PictureReranker):
    """log p(query | image), by the run's own generator or by a captioning model."""

    class Config(PictureConfig):
        model: str | None = None
        """A captioning model, BLIP or GIT: name on the model hub, local folder or registered weights; null: the run's
        own generator, which must have been trained with `loss.reverse`."""

    architectures = ("BlipForConditionalGeneration", "GitForCausalLM")

    def load(self) -> None:
        if self.config.model is not None:
            super().load()

    def score(self, candidates: Candidates) -> Tensor:
        if self.config.model is not None:
            return super().score(candidates)
        log_probs = candidates.caption_log_probs
        if log_probs is None:
            raise GenretError(
                "rerank reverse: this run's generator has not learnt log p(query | image); train with loss.reverse and "
                "a backbone that reads image vectors, or name a captioning model as rerank.model"
            )
        scores = torch.full(candidates.rows.shape, -torch.inf)
        query, place = (candidates.rows >= 0).nonzero(as_tuple=True)
        with torch.inference_mode():
            for part in torch.arange(len(query)).split(self.config.batch_size):
                texts = [candidates.queries[row] for row in query[part].tolist()]
                features = candidates.features[query[part], place[part]]
                scores[query[part], place[part]] = log_probs(features, texts).float().cpu()
        return scores

    def encode(self, pixels: Tensor) -> Tensor:
        """BLIP: (P, 3, S, S) → (P, T, D) patches. GIT reads image and text as one sequence: returns the pixels."""
        if not hasattr(self.model, "vision_model"):
            return pixels
        states: Tensor = self.model.vision_model(pixel_values=pixels).last_hidden_state
        return states

    def judge(self, states: Tensor, words: Words) -> Tensor:
        ids, mask = words
        if hasattr(self.model, "text_decoder"):
            ids = ids.clone()
            ids[:, 0] = self.model.config.text_config.bos_token_id  # BLIP's captions begin with a special token
            logits = self.model.text_decoder(input_ids=ids, attention_mask=mask, encoder_hidden_states=states).logits
        else:
            logits = self.model(pixel_values=states, input_ids=ids, attention_mask=mask, use_cache=False).logits
            logits = logits[:, -ids.shape[1] :]  # after those of the image
        # the token at l is predicted from those before it; the end token counts as well
        told = logits[:, :-1].float().log_softmax(-1).gather(2, ids[:, 1:, None])[..., 0]
        return (told * mask[:, 1:]).sum(1)
