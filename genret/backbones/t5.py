"""T5 as a writer of identifiers: pretrained by name or folder, or a small one with a tokenizer made from captions."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoTokenizer, T5Config, T5ForConditionalGeneration

from genret import interfaces
from genret.backbones import t5_decoder
from genret.backbones.tokenizers import train_tokenizer
from genret.errors import GenretError, UsageError, one_line
from genret.interfaces import Backbone, Identifiers, Vokens


class T5Backbone(Backbone):
    """Encoder-decoder: reads the query, writes the identifier (T5, T5 v1.1, flan-T5; paper 3.2)."""

    class Config(interfaces.Config):
        model: str | None = None
        """Name on the model hub, local folder or registered weights; null builds a small T5 from the options below."""
        revision: str | None = None
        """Commit of a hub model, so that a recipe means the same weights tomorrow."""
        d_model: int = Field(256, ge=8)
        """Width of a T5 built here."""
        d_ff: int = Field(1024, ge=8)
        """Width of its feed-forward layers."""
        num_layers: int = Field(4, ge=1)
        """Layers of its encoder."""
        num_decoder_layers: int | None = Field(None, ge=1)
        """Layers of its decoder; null: as many as the encoder's."""
        num_heads: int = Field(4, ge=1)
        """Attention heads of each layer."""
        dropout: float | None = Field(None, ge=0, lt=1)
        """Dropout; null keeps the pretrained model's own, 0.1 for one built here."""
        vocab_size: int = Field(4000, ge=64)
        """Most word pieces of the tokenizer that is trained on the captions."""
        max_query_tokens: int = Field(64, ge=4, le=512)
        """Longer queries are cut."""
        copy_code_vectors: bool | Literal["auto"] = "auto"
        """Whether the new rows start as the identifier's code vectors (paper 3.2); auto: where there are any."""

    def __init__(self, config: Any = None, **lent: Any):
        super().__init__(config, **lent)
        self.module: Any = None
        self.tokenizer: Any = None
        self._vokens = Vokens()
        self._first = 0  # token id of the scheme's symbol 0

    # ------------------------------------------------------------------------------------------------ building
    def build(
        self, vokens: Vokens, code_vectors: Tensor | None, texts: Iterable[str], seed: int, feature_width: int = 0
    ) -> None:
        copy = self.config.copy_code_vectors
        if copy is True and code_vectors is None:
            raise UsageError(
                "backbone.copy_code_vectors is true, but this identifier has no code vectors; set it to auto or false"
            )
        torch.manual_seed(seed)
        if self.config.model is None:
            self.tokenizer = train_tokenizer(texts, self.config.vocab_size)
            self.module = T5ForConditionalGeneration(self._small_config())
        else:
            self.tokenizer, self.module = self._pretrained(self.resolve_weights(self.config.model))
            if self.config.dropout is not None:
                _set_dropout(self.module, self.config.dropout)
        self._vokens = vokens
        self._first = self.module.shared.num_embeddings
        if vokens.num_symbols:
            _grow(self.module, vokens.num_symbols)
            if code_vectors is not None and copy is not False:
                self._copy(code_vectors)

    def _small_config(self) -> T5Config:
        c = self.config
        if c.d_model % c.num_heads:
            raise UsageError(f"backbone.d_model ({c.d_model}) must be a multiple of backbone.num_heads ({c.num_heads})")
        config = T5Config(
            vocab_size=len(self.tokenizer),
            d_model=c.d_model,
            d_kv=c.d_model // c.num_heads,
            d_ff=c.d_ff,
            num_layers=c.num_layers,
            num_decoder_layers=c.num_decoder_layers or c.num_layers,
            num_heads=c.num_heads,
            dropout_rate=0.1 if c.dropout is None else c.dropout,
            feed_forward_proj="gated-gelu",
            pad_token_id=0,
            eos_token_id=1,
        )
        config.decoder_start_token_id = 0
        return config

    def _pretrained(self, name: str) -> tuple[Any, Any]:
        options: dict[str, Any] = {"revision": self.config.revision, "trust_remote_code": False}
        try:
            tokenizer = AutoTokenizer.from_pretrained(name, **options)
            model = T5ForConditionalGeneration.from_pretrained(
                name, dtype=torch.float32, use_safetensors=True, **options
            )
        except (OSError, ValueError) as error:
            raise GenretError(
                f"backbone.model: cannot load '{name}' ({str(error).splitlines()[0]}); give a local folder with "
                "safetensors weights, or a T5 of the model hub while online"
            ) from error
        return tokenizer, model

    def _copy(self, code_vectors: Tensor) -> None:
        """Copies the code vectors into the new rows, scaled to the old rows' size so that neither drowns the other."""
        assert len(code_vectors) == self._vokens.num_symbols
        with torch.no_grad():
            for table in {id(t): t for t in (self.module.shared.weight, self.module.lm_head.weight)}.values():
                old, width = table[: self._first], table.shape[1]
                rows = code_vectors.to(table)
                if rows.shape[1] != width:
                    rows = rows @ _projection(rows.shape[1], width).to(table)
                # each level by itself: deeper codes are shorter, and would start as near-zero rows
                sizes = (self._vokens.num_symbols,) if self._vokens.shared else self._vokens.sizes
                scaled = [part / part.square().mean().sqrt().clamp_min(1e-8) for part in rows.split(sizes)]
                table[self._first :] = torch.cat(scaled) * old.square().mean().sqrt()

    # ------------------------------------------------------------------------------------------------ tokens
    @property
    def end_token(self) -> int:  # type: ignore[override]
        return int(self.tokenizer.eos_token_id)

    @property
    def vocab_size(self) -> int:  # type: ignore[override]
        return int(self.module.shared.num_embeddings)

    @property
    def _device(self) -> torch.device:
        return self.module.shared.weight.device

    def tokens(self, identifiers: Identifiers) -> Tensor:
        if identifiers.codes is not None:
            offsets = torch.tensor([self._vokens.offset(level) for level in range(identifiers.codes.shape[1])])
            ids = identifiers.codes + offsets.to(identifiers.codes) + self._first
            return ids.masked_fill(identifiers.codes < 0, -1)
        assert identifiers.texts is not None
        rows = self.tokenizer(list(identifiers.texts), add_special_tokens=False)["input_ids"]
        return nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=-1)

    def level_tokens(self, level: int) -> Tensor | None:
        if level >= len(self._vokens.sizes):
            return None
        first = self._first + self._vokens.offset(level)
        symbols = torch.arange(first, first + self._vokens.sizes[level], device=self._device)
        if self._vokens.variable and level > 0:
            return torch.cat([symbols, symbols.new_tensor([self.end_token])]).sort().values
        return symbols

    def _read(self, queries: Sequence[str]) -> t5_decoder.State:
        batch = self.tokenizer(
            list(queries), padding=True, truncation=True, max_length=self.config.max_query_tokens, return_tensors="pt"
        ).to(self._device)
        return t5_decoder.encode(self.module, batch["input_ids"], batch["attention_mask"])

    # ------------------------------------------------------------------------------------------------ training
    def logits(self, queries: Sequence[str], targets: Tensor) -> Tensor:
        hidden = t5_decoder.decode(self.module, self._read(queries), self._shifted(targets[:, None]))
        return self.module.lm_head(hidden[:, 0])

    def score(self, queries: Sequence[str], sequences: Tensor, columns: Sequence[Tensor | None]) -> Tensor:
        hidden = t5_decoder.decode(self.module, self._read(queries), self._shifted(sequences))
        scores = []
        for position, wanted in enumerate(columns):
            target = sequences[:, :, position]
            index = target.clamp_min(0) if wanted is None else torch.searchsorted(wanted, target.clamp_min(0))
            log_probs = self._head(hidden[:, :, position], wanted).float().log_softmax(dim=-1)
            index = index.clamp_max(log_probs.shape[-1] - 1)
            scores.append(log_probs.gather(2, index[..., None])[..., 0].masked_fill(target < 0, 0.0))
        return torch.stack(scores, dim=-1)

    def _shifted(self, tokens: Tensor) -> Tensor:
        """(B, b, L), -1 pads → the decoder's inputs: the start token, then all but the last."""
        start = torch.full_like(tokens[:, :, :1], self.module.config.decoder_start_token_id)
        return torch.cat([start, tokens[:, :, :-1].clamp_min(0)], dim=-1)

    def _head(self, hidden: Tensor, columns: Tensor | None) -> Tensor:
        if columns is None:
            return self.module.lm_head(hidden)
        return hidden @ self.module.lm_head.weight[columns].T.to(hidden.dtype)

    # ------------------------------------------------------------------------------------------------ decoding
    def prefill(self, queries: Sequence[str]) -> t5_decoder.State:
        return self._read(queries)

    def step(
        self, state: t5_decoder.State, symbols: Tensor | None, parents: Tensor | None, columns: Tensor | None
    ) -> Tensor:
        if symbols is None:
            symbols = torch.full(
                (len(state.query_mask), 1), self.module.config.decoder_start_token_id, device=self._device
            )
        hidden = t5_decoder.decode(self.module, state, symbols[:, :, None], parents, remember=True)
        return self._head(hidden[:, :, 0], columns)

    # ------------------------------------------------------------------------------------------------ disk
    def save(self, folder: Path) -> None:
        self.module.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        facts = {"first_symbol": self._first, "untied": _untied(self.module)}
        (folder / "genret.json").write_text(json.dumps(facts))

    def load(self, folder: Path, vokens: Vokens) -> None:
        try:
            facts = json.loads((folder / "genret.json").read_text())
            self.tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
            self.module = T5ForConditionalGeneration.from_pretrained(
                folder, dtype=torch.float32, use_safetensors=True, local_files_only=True
            )
            if facts["untied"] and not _untied(self.module):  # transformers 5 ties T5 unless told otherwise
                _untie(self.module, load_file(folder / "model.safetensors")["lm_head.weight"])
            self._first, self._vokens = int(facts["first_symbol"]), vokens
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
            raise GenretError(
                f"{folder} holds no usable generator ({one_line(error)}); "
                "make it anew with: genret train --run DIR --resume"
            ) from error
        self.module.eval()


def _untied(model: Any) -> bool:
    return model.lm_head.weight.data_ptr() != model.shared.weight.data_ptr()


def _untie(model: Any, head: Tensor) -> None:
    model.lm_head.weight = nn.Parameter(head.clone().to(model.shared.weight))


def _grow(model: Any, count: int) -> None:
    """Adds `count` rows to the embedding and to the head, and keeps an untied head untied."""
    untied, head = _untied(model), model.lm_head.weight.detach().clone()
    before = model.shared.num_embeddings
    model.resize_token_embeddings(before + count, mean_resizing=False)
    if untied:
        fresh = torch.randn(count, head.shape[1]) * head.square().mean().sqrt()
        _untie(model, torch.cat([head, fresh.to(head)]))


def _projection(rows: int, columns: int) -> Tensor:
    """A fixed random map that keeps angles: orthonormal rows (or columns)."""
    generator = torch.Generator().manual_seed(0)
    square = torch.randn(max(rows, columns), min(rows, columns), generator=generator)
    basis = torch.linalg.qr(square).Q
    return basis if rows >= columns else basis.T


def _set_dropout(model: nn.Module, rate: float) -> None:
    for part in model.modules():
        if isinstance(part, nn.Dropout):
            part.p = rate
        elif isinstance(getattr(part, "dropout", None), float):  # attention keeps its rate as a number
            vars(part)["dropout"] = rate
