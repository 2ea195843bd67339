"""ExampleBackbone: a bag of words as encoder and a recurrent network as decoder.

B queries   b beams   L tokens   V vocabulary   d width
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import torch
from pydantic import Field
from safetensors.torch import load_file, save_file
from torch import nn

import genret

END = 256
"""Tokens: 256 bytes, for identifiers of text; the end token; then the identifier's vokens."""


class Writer(nn.Module):
    """The query's words set the initial state of a GRU, which then generates the tokens."""

    def __init__(self, buckets: int, width: int, vocab_size: int):
        super().__init__()
        self.words = nn.EmbeddingBag(buckets, width, mode="mean")
        self.state = nn.Linear(width, width)
        self.tokens = nn.Embedding(vocab_size + 1, width)  # the last row is the start token
        self.cell = nn.GRUCell(width, width)
        self.head = nn.Linear(width, vocab_size)


class ExampleBackbone(genret.Backbone):
    """A bag of hashed words and a recurrent network: small and fast."""

    end_token = END

    class Config(genret.Config):
        width: int = Field(128, ge=8)
        """Width of embeddings and state."""
        buckets: int = Field(4096, ge=16)
        """Number of buckets that words of queries are hashed into."""

    def build(self, vokens, code_vectors, texts, seed, feature_width=0):
        torch.manual_seed(seed)
        self._set(vokens)

    def _set(self, vokens):
        self.vokens = vokens
        self.vocab_size = END + 1 + vokens.num_symbols
        self.module = Writer(self.config.buckets, self.config.width, self.vocab_size)

    # ------------------------------------------------------------------------------------------------ tokens
    def tokens(self, identifiers):
        if identifiers.codes is not None:
            offsets = torch.tensor([self.vokens.offset(level) for level in range(identifiers.codes.shape[1])])
            return (identifiers.codes + offsets + END + 1).masked_fill(identifiers.codes < 0, -1)
        rows = [torch.tensor(list(text.encode())) for text in identifiers.texts]
        return nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-1)

    def level_tokens(self, level):
        if level >= len(self.vokens.sizes):
            return None
        first = END + 1 + self.vokens.offset(level)
        end = [END] if self.vokens.variable and level > 0 else []
        return torch.tensor([*end, *range(first, first + self.vokens.sizes[level])], device=self._device)

    @property
    def _device(self):
        return self.module.head.weight.device

    # ------------------------------------------------------------------------------------------------ writing
    def _read(self, queries):
        """B queries → (B, d)"""
        hashed = [
            [zlib.crc32(w.encode()) % self.config.buckets for w in text.lower().split()] or [0] for text in queries
        ]
        words = torch.tensor([word for row in hashed for word in row], device=self._device)
        starts = torch.tensor([0, *(len(row) for row in hashed[:-1])], device=self._device).cumsum(0)
        return torch.tanh(self.module.state(self.module.words(words, starts)))

    def _forced(self, state, targets):
        """state (n, d), targets (n, L), -1 pads → logits (n, L, V)"""
        token = torch.full_like(targets[:, 0], self.vocab_size)
        logits = []
        for position in range(targets.shape[1]):
            state = self.module.cell(self.module.tokens(token), state)
            logits.append(self.module.head(state))
            token = targets[:, position].clamp_min(0)
        return torch.stack(logits, dim=1)

    def logits(self, queries, targets):
        return self._forced(self._read(queries), targets)

    def score(self, queries, sequences, columns):
        batch, beams, _ = sequences.shape
        logits = self._forced(self._read(queries).repeat_interleave(beams, 0), sequences.flatten(0, 1))
        scores = []
        for position, wanted in enumerate(columns):
            target = sequences[:, :, position].flatten().clamp_min(0)
            here = logits[:, position]
            if wanted is not None:
                here, target = here[:, wanted], torch.searchsorted(wanted, target).clamp_max(len(wanted) - 1)
            scores.append(here.log_softmax(-1).gather(1, target[:, None]).view(batch, beams))
        return torch.stack(scores, -1).masked_fill(sequences < 0, 0.0)

    def prefill(self, queries):
        return {"hidden": self._read(queries)[:, None]}  # (B, b, d)

    def step(self, state, symbols, parents, columns):
        hidden = state["hidden"]
        if parents is not None:
            hidden = hidden.gather(1, parents[..., None].expand(-1, -1, hidden.shape[-1]))
        if symbols is None:
            symbols = torch.full(hidden.shape[:2], self.vocab_size, device=self._device)
        flat = self.module.cell(self.module.tokens(symbols).flatten(0, 1), hidden.flatten(0, 1))
        state["hidden"] = flat.view(*symbols.shape, -1)
        logits = self.module.head(state["hidden"])
        return logits if columns is None else logits[..., columns]

    # ------------------------------------------------------------------------------------------------ disk
    def save(self, folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        weights = {key: value.cpu().contiguous() for key, value in self.module.state_dict().items()}
        save_file(weights, folder / "model.safetensors")
        (folder / "config.json").write_text(json.dumps({"model_type": "example"}))

    def load(self, folder: Path, vokens):
        self._set(vokens)
        self.module.load_state_dict(load_file(folder / "model.safetensors"))
        self.module.eval()
