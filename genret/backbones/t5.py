"""T5 as a writer of identifiers: pretrained by name or folder, or a small one with a tokenizer made from captions.

A small one may leave reading to a pretrained text encoder, whose states it then maps into its own width.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoTokenizer, T5Config, T5ForConditionalGeneration

from genret import interfaces
from genret.backbones import t5_decoder
from genret.backbones.t5_vocabulary import copy_code_vectors, grow, untie, untied
from genret.backbones.text_encoder import TextEncoder
from genret.backbones.tokenizers import cut_texts, train_tokenizer
from genret.errors import GenretError, UsageError, one_line
from genret.hub import model_folder
from genret.interfaces import Backbone, Identifiers, Vokens


class T5Backbone(Backbone):
    """Encoder-decoder: reads the query, writes the identifier (T5, T5 v1.1, flan-T5; paper 3.2)."""

    class Config(interfaces.Config):
        model: str | None = None
        """Name on the model hub, local folder or registered weights; null builds a small T5 from the options below."""
        revision: str | None = None
        """Commit of a hub model, so that a recipe means the same weights tomorrow."""
        encoder: str | None = None
        """Pretrained text encoder that reads the queries instead of T5's own: hub name, local folder or registered
        weights such as starter:minilm; null: T5's own."""
        train_encoder: bool = False
        """Whether that encoder is trained along, which wants a small `train.lr`; else it stays as it is."""
        d_model: int = Field(256, ge=8)
        """Width of a T5 built here."""
        d_ff: int = Field(1024, ge=8)
        """Width of its feed-forward layers."""
        num_layers: int = Field(4, ge=0)
        """Layers of its encoder; on top of the pretrained one where there is `encoder`, and 0 only there."""
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
        self.module: Any = None  # ModuleDict: t5; from_encoder and, if trained, encoder, where there is one
        self.tokenizer: Any = None  # writes texts, and reads them unless there is an encoder
        self._encoder: TextEncoder | None = None
        self._vokens = Vokens()
        self._first = 0  # token id of the scheme's symbol 0

    @property
    def t5(self) -> Any:
        return self.module["t5"]

    # ------------------------------------------------------------------------------------------------ building
    def build(
        self, vokens: Vokens, code_vectors: Tensor | None, texts: Iterable[str], seed: int, feature_width: int = 0
    ) -> None:
        self._check(code_vectors)
        torch.manual_seed(seed)
        if self.config.model is None:
            texts = list(texts)
            # codes alone need no words
            words = texts if self.config.encoder is None or not vokens.sizes else ()
            self.tokenizer = train_tokenizer(words, self.config.vocab_size, byte_fallback=not vokens.sizes)
            t5 = T5ForConditionalGeneration(self._small_config())
        else:
            self.tokenizer, t5 = self._pretrained(self.resolve_weights(self.config.model))
            if self.config.dropout is not None:
                _set_dropout(t5, self.config.dropout)
        self._vokens = vokens
        self._first = t5.shared.num_embeddings
        if vokens.num_symbols:
            grow(t5, vokens.num_symbols)
            if code_vectors is not None and self.config.copy_code_vectors is not False:
                sizes = (vokens.num_symbols,) if vokens.shared else vokens.sizes
                copy_code_vectors(t5, self._first, code_vectors, sizes)
        self.module = nn.ModuleDict({"t5": t5})
        if self.config.encoder is not None:
            name = self.resolve_weights(self.config.encoder)
            self._attach(model_folder(name, self.config.revision))
            assert self._encoder is not None
            self._encoder.remember(texts)
            self.module["from_encoder"] = _Projection(self._encoder.width, self.config.d_model)

    def _check(self, code_vectors: Tensor | None) -> None:
        c = self.config
        if c.copy_code_vectors is True and code_vectors is None:
            raise UsageError(
                "backbone.copy_code_vectors is true, but this identifier has no code vectors; set it to auto or false"
            )
        if c.encoder is not None and c.model is not None:
            raise UsageError("backbone.encoder reads for a T5 that is built here; set it or backbone.model to null")
        if c.encoder is None and c.train_encoder:
            raise UsageError("backbone.train_encoder is true, but there is no backbone.encoder to train; name one")
        if c.encoder is None and c.model is None and c.num_layers == 0:
            raise UsageError("backbone.num_layers is 0, so nothing reads the query; name a backbone.encoder")
        if c.model is None and c.d_model % c.num_heads:
            raise UsageError(f"backbone.d_model ({c.d_model}) must be a multiple of backbone.num_heads ({c.num_heads})")

    def _attach(self, folder: Path) -> None:
        """Opens the text encoder. A frozen one is no part of `module`: nothing trains, checkpoints or copies it."""
        self._encoder = TextEncoder(folder, self.config.max_query_tokens, self.config.train_encoder)
        if self._encoder.trainable:
            self.module["encoder"] = self._encoder.model

    def _small_config(self) -> T5Config:
        c = self.config
        config = T5Config(
            vocab_size=len(self.tokenizer),
            d_model=c.d_model,
            d_kv=c.d_model // c.num_heads,
            d_ff=c.d_ff,
            num_layers=c.num_layers,
            num_decoder_layers=c.num_decoder_layers or max(1, c.num_layers),
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

    # ------------------------------------------------------------------------------------------------ tokens
    @property
    def end_token(self) -> int:  # type: ignore[override]
        return int(self.tokenizer.eos_token_id)

    @property
    def vocab_size(self) -> int:  # type: ignore[override]
        return int(self.t5.shared.num_embeddings)

    @property
    def _device(self) -> torch.device:
        return self.t5.shared.weight.device

    def tokens(self, identifiers: Identifiers) -> Tensor:
        if identifiers.codes is not None:
            offsets = torch.tensor([self._vokens.offset(level) for level in range(identifiers.codes.shape[1])])
            ids = identifiers.codes + offsets.to(identifiers.codes) + self._first
            return ids.masked_fill(identifiers.codes < 0, -1)
        assert identifiers.texts is not None
        return cut_texts(self.tokenizer, identifiers.texts)

    def level_tokens(self, level: int) -> Tensor | None:
        if level >= len(self._vokens.sizes):
            return None
        first = self._first + self._vokens.offset(level)
        symbols = torch.arange(first, first + self._vokens.sizes[level], device=self._device)
        if self._vokens.variable and level > 0:
            return torch.cat([symbols, symbols.new_tensor([self.end_token])]).sort().values
        return symbols

    def _read(self, queries: Sequence[str]) -> t5_decoder.State:
        if self._encoder is not None:
            states, mask = self._encoder(queries, self._device)
            return t5_decoder.encode(self.t5, mask, inputs_embeds=self.module["from_encoder"](states))
        batch = self.tokenizer(
            list(queries), padding=True, truncation=True, max_length=self.config.max_query_tokens, return_tensors="pt"
        ).to(self._device)
        return t5_decoder.encode(self.t5, batch["attention_mask"], input_ids=batch["input_ids"])

    # ------------------------------------------------------------------------------------------------ training
    def logits(self, queries: Sequence[str], targets: Tensor) -> Tensor:
        hidden = t5_decoder.decode(self.t5, self._read(queries), self._shifted(targets[:, None]))
        return self.t5.lm_head(hidden[:, 0])

    def score(self, queries: Sequence[str], sequences: Tensor, columns: Sequence[Tensor | None]) -> Tensor:
        hidden = t5_decoder.decode(self.t5, self._read(queries), self._shifted(sequences))
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
        start = torch.full_like(tokens[:, :, :1], self.t5.config.decoder_start_token_id)
        return torch.cat([start, tokens[:, :, :-1].clamp_min(0)], dim=-1)

    def _head(self, hidden: Tensor, columns: Tensor | None) -> Tensor:
        if columns is None:
            return self.t5.lm_head(hidden)
        return hidden @ self.t5.lm_head.weight[columns].T.to(hidden.dtype)

    # ------------------------------------------------------------------------------------------------ decoding
    def prefill(self, queries: Sequence[str]) -> t5_decoder.State:
        return self._read(queries)

    def step(
        self, state: t5_decoder.State, symbols: Tensor | None, parents: Tensor | None, columns: Tensor | None
    ) -> Tensor:
        if symbols is None:
            symbols = torch.full((len(state.query_mask), 1), self.t5.config.decoder_start_token_id, device=self._device)
        hidden = t5_decoder.decode(self.t5, state, symbols[:, :, None], parents, remember=True)
        return self._head(hidden[:, :, 0], columns)

    # ------------------------------------------------------------------------------------------------ disk
    def save(self, folder: Path) -> None:
        self.t5.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        facts = {"first_symbol": self._first, "untied": untied(self.t5), "encoder": self._encoder is not None}
        if self._encoder is not None:  # frozen or not: a run is searched wherever it is copied to
            self._encoder.save(folder / "encoder")
            state = self.module["from_encoder"].state_dict()
            save_file({key: value.contiguous() for key, value in state.items()}, folder / "from_encoder.safetensors")
        (folder / "genret.json").write_text(json.dumps(facts))

    def load(self, folder: Path, vokens: Vokens) -> None:
        try:
            facts = json.loads((folder / "genret.json").read_text())
            self.tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
            t5 = T5ForConditionalGeneration.from_pretrained(
                folder, dtype=torch.float32, use_safetensors=True, local_files_only=True
            )
            if facts["untied"] and not untied(t5):  # transformers 5 ties T5 unless told otherwise
                untie(t5, load_file(folder / "model.safetensors")["lm_head.weight"])
            self._first, self._vokens = int(facts["first_symbol"]), vokens
            self.module, self._encoder = nn.ModuleDict({"t5": t5}), None
            if facts.get("encoder"):
                self._attach(folder / "encoder")
                self.module["from_encoder"] = _Projection.load(folder / "from_encoder.safetensors")
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError, GenretError) as error:
            raise GenretError(
                f"{folder} holds no usable generator ({one_line(error)}); "
                "make it anew with: genret train --run DIR --resume"
            ) from error
        self.module.eval()


class _Projection(nn.Sequential):
    """Vectors of another model → T5's width, where they stand in the place of embedded words."""

    def __init__(self, width: int, d_model: int):
        super().__init__(nn.Linear(width, d_model), nn.LayerNorm(d_model))

    @classmethod
    def load(cls, path: Path) -> _Projection:
        state = load_file(path)
        d_model, width = state["0.weight"].shape
        projection = cls(width, d_model)
        projection.load_state_dict(state)
        return projection


def _set_dropout(model: nn.Module, rate: float) -> None:
    for part in model.modules():
        if isinstance(part, nn.Dropout):
            part.p = rate
        elif isinstance(getattr(part, "dropout", None), float):  # attention keeps its rate as a number
            vars(part)["dropout"] = rate
