"""T5 generates identifiers: pretrained, by name or folder, or a small one with a tokenizer trained on captions.

A small one can use a pretrained text encoder, whose states are projected to its own width.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import torch
from pydantic import Field, model_validator
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoTokenizer

from genret import api
from genret.api import Backbone, Identifiers, Vokens
from genret.components.backbones import t5_decoder, t5_model
from genret.components.backbones.code_head import CodeHead
from genret.components.backbones.kernels import linear, rows_of
from genret.components.backbones.t5_model import Projection
from genret.components.backbones.text_encoder import TOKENIZING, TextEncoders
from genret.components.backbones.tokenizers import train_tokenizer
from genret.components.backbones.vocabulary import Vocabulary, grow, sequence_log_probs, untied, wants_copy
from genret.errors import GenretError, UsageError, one_line
from genret.kit.files import read_json
from genret.toolbox.saving import load as stored
from genret.toolbox.saving import save as saved
from genret.toolbox.weights import model_folder, reads


class T5Backbone(Backbone):
    """Encoder-decoder: reads the query, generates the identifier (T5, T5 v1.1, flan-T5; paper 3.2)."""

    class Config(api.Config):
        model: str | None = None
        """Name on the model hub, local folder or registered weights; null builds a small T5 from the options below."""
        revision: str | None = None
        """Commit of a hub model, so that a recipe always loads the same weights."""
        encoder: str | list[str] | None = None
        """Pretrained text encoder that replaces T5's own: hub name, local folder or registered weights such as
        starter:minilm; several of them read side by side; null: T5's own."""
        train_encoder: bool = False
        """Whether that encoder is trained too, which needs a small `train.lr`; otherwise it is frozen."""
        d_model: int = Field(256, ge=8)
        """Width of a T5 built here."""
        d_ff: int = Field(1024, ge=8)
        """Width of the feed-forward layers."""
        num_layers: int = Field(4, ge=0)
        """Number of encoder layers; with `encoder`, on top of the pretrained one, and only then may it be 0."""
        num_decoder_layers: int | None = Field(None, ge=1)
        """Number of decoder layers; null: as many as encoder layers."""
        num_heads: int = Field(4, ge=1)
        """Attention heads of each layer."""
        dropout: float | None = Field(None, ge=0, lt=1)
        """Dropout; null keeps the pretrained model's value; 0.1 for a model built here."""
        vocab_size: int = Field(4000, ge=64)
        """Maximum vocabulary size of the tokenizer trained on the captions."""
        max_query_tokens: int = Field(64, ge=4, le=4096)
        """Maximum query length in tokens; longer queries are truncated."""
        copy_code_vectors: bool | Literal["auto"] = "auto"
        """Whether to initialize the new rows with the identifier's code vectors (paper 3.2); auto: if it has any."""
        code_head: int = Field(0, ge=0)
        """Hidden width of a head that reads the query's vector and gives each code a logit by the distance that it
        leaves, beside the decoder's; needs `encoder` and an additive identifier such as rq; 0: none."""

        @model_validator(mode="after")
        def _agrees(self) -> Self:
            if self.encoder is not None and self.model is not None:
                raise ValueError("`encoder` reads for a T5 that is built here; set it or `model` to null")
            if self.encoder == []:
                raise ValueError("`encoder` names nothing; name a text encoder, or set it to null")
            if self.encoder is None and self.train_encoder:
                raise ValueError("`train_encoder` is true, but there is no `encoder` to train; name one")
            if self.encoder is None and self.model is None and self.num_layers == 0:
                raise ValueError(
                    "`num_layers` is 0, so nothing reads the query; set it to 1 or more, or name an `encoder`"
                )
            if self.code_head and self.encoder is None:
                raise ValueError("`code_head` reads an `encoder`'s states, and there is none; name one or set it to 0")
            if self.model is None and self.d_model % self.num_heads:
                raise ValueError(f"`d_model` ({self.d_model}) must be a multiple of `num_heads` ({self.num_heads})")
            return self

    reads_features = True
    has_query_vectors = True
    is_concurrent = True

    def __init__(self, config: Any = None, **resources: Any):
        super().__init__(config, **resources)
        self.module: Any = None  # ModuleDict: t5, the projections and, if trained, the encoder
        self.tokenizer: Any = None  # decodes texts, and encodes them unless there is an encoder
        self.vocabulary: Any = None
        self._encoder: TextEncoders | None = None

    @property
    def t5(self) -> Any:
        return self.module["t5"]

    # ------------------------------------------------------------------------------------------------ building
    def build(
        self, vokens: Vokens, code_vectors: Tensor | None, texts: Iterable[str], seed: int, feature_width: int = 0
    ) -> None:
        copies, texts = wants_copy(self.config.copy_code_vectors, code_vectors), list(texts)
        torch.manual_seed(seed)
        c = self.config
        if c.model is None:
            only_codes = c.encoder is not None and vokens.sizes and not feature_width  # no text is encoded or generated
            spelled = () if only_codes else texts
            self.tokenizer = train_tokenizer(spelled, c.vocab_size, byte_fallback=not vokens.sizes)
            t5 = t5_model.small(c, len(self.tokenizer))
        else:
            self.tokenizer, t5 = t5_model.pretrained(model_folder(self.resolve_weights(c.model), c.revision), c.dropout)
        self.vocabulary = Vocabulary(self.tokenizer, vokens, t5.shared.num_embeddings)
        scale = float(t5.shared.weight.detach().square().mean().sqrt())
        if vokens.num_symbols:
            grow(t5, vokens.num_symbols)
        if copies:
            assert code_vectors is not None
            self.vocabulary.copy_code_vectors(t5, code_vectors)
        self.module = nn.ModuleDict({"t5": t5})
        if c.encoder is not None:
            names = [c.encoder] if isinstance(c.encoder, str) else c.encoder
            self._attach([model_folder(self.resolve_weights(name), c.revision) for name in names])
            assert self._encoder is not None
            self._encoder.remember(texts)
            self.module["from_encoder"] = Projection(self._encoder.width, t5.model_dim, scale)
        if c.code_head:
            self._know_codes(code_vectors)
        if feature_width:
            self.module["from_image"] = Projection(feature_width, t5.model_dim, scale)

    def _attach(self, folders: Sequence[Path]) -> None:
        """Loads the text encoders. Frozen ones are outside `module`: not trained, checkpointed or copied."""
        self._encoder = TextEncoders(folders, self.config.max_query_tokens, self.config.train_encoder)
        if self._encoder.trainable:
            self.module["encoder"] = self._encoder.model

    def _know_codes(self, code_vectors: Tensor | None) -> None:
        if code_vectors is None:
            raise UsageError("backbone.code_head needs code vectors, which this identifier has not; set it to 0")
        assert self._encoder is not None
        drop = 0.1 if self.config.dropout is None else self.config.dropout
        width, first, sizes = self._encoder.width, self.vocabulary.first, self.vocabulary.vokens.sizes
        self.module["codes"] = CodeHead.of(width, first, code_vectors, sizes, self.config.code_head, drop)

    # ------------------------------------------------------------------------------------------------ tokens
    @property
    def end_token(self) -> int:  # type: ignore[override]
        return int(self.vocabulary.end_token)

    @property
    def vocab_size(self) -> int:  # type: ignore[override]
        return int(self.t5.shared.num_embeddings)

    @property
    def _device(self) -> torch.device:
        device: torch.device = self.t5.shared.weight.device
        return device

    def tokens(self, identifiers: Identifiers) -> Tensor:
        return self.vocabulary.tokens(identifiers)

    def level_tokens(self, level: int) -> Tensor | None:
        return self.vocabulary.level_tokens(level, self._device)

    def _read(self, queries: Sequence[str]) -> t5_decoder.DecoderState:
        if self._encoder is not None:
            states, mask = self._encoder(queries, self._device)
            state = t5_decoder.encode(self.t5, mask, inputs_embeds=self.module["from_encoder"](states))
            if "codes" in self.module:
                state.left = self.module["codes"].read(states, mask)[:, None]
            return state
        options = {"truncation": True, "max_length": self.config.max_query_tokens, "return_tensors": "pt"}
        with TOKENIZING:
            batch = self.tokenizer(list(queries), padding=True, **options).to(self._device)
        return t5_decoder.encode(self.t5, batch["attention_mask"], input_ids=batch["input_ids"])

    def _look(self, features: Tensor) -> t5_decoder.DecoderState:
        """(B, D) → an image is one input position of T5's encoder."""
        if "from_image" not in self.module:
            raise GenretError(
                "this generator never learnt to read image vectors; "
                "train one with loss.memorize.weight or loss.reverse.weight above 0"
            )
        embedded = self.module["from_image"](features.to(self._device))[:, None]
        return t5_decoder.encode(self.t5, torch.ones(embedded.shape[:2], device=self._device), inputs_embeds=embedded)

    # ------------------------------------------------------------------------------------------------ training
    def logits(self, queries: Sequence[str], targets: Tensor) -> Tensor:
        return self._forced(self._read(queries), targets)

    def level_logits(self, queries: Sequence[str], targets: Tensor, columns: Sequence[Tensor | None]) -> list[Tensor]:
        hidden = self._decoded(self._read(queries), targets[:, None])[:, 0]
        return [self._head(here, own) for here, own in zip(hidden.unbind(1), columns, strict=True)]

    def feature_logits(self, features: Tensor, targets: Tensor) -> Tensor:
        return self._forced(self._look(features), targets)

    def _forced(self, state: t5_decoder.DecoderState, targets: Tensor) -> Tensor:
        return self._head(self._decoded(state, targets[:, None])[:, 0], None)

    def score(self, queries: Sequence[str], sequences: Tensor, columns: Sequence[Tensor | None]) -> Tensor:
        hidden = self._decoded(self._read(queries), sequences)
        return sequence_log_probs(hidden, sequences, columns, self._head)

    def caption_log_probs(self, features: Tensor, captions: Sequence[str]) -> Tensor:
        """The sum over the caption's tokens and the end token; longer captions are truncated like queries."""
        state = self._look(features)
        plain = {"add_special_tokens": False, "split_special_tokens": True}
        plain |= {"truncation": True, "max_length": self.config.max_query_tokens - 1}
        pieces = self.tokenizer(list(captions), **plain)["input_ids"]
        rows = [torch.tensor([*row, self.end_token]) for row in pieces]
        written = pad_sequence(rows, batch_first=True, padding_value=-1)[:, None].to(self._device)
        hidden = t5_decoder.decode(self.t5, state, self._shifted(written))
        return sequence_log_probs(hidden, written, [None] * written.shape[2], self._head).sum(-1)[:, 0]

    def _decoded(self, state: t5_decoder.DecoderState, sequences: Tensor) -> Tensor:
        """sequences (B, b, L) → what `_head` reads before each of their tokens, (B, b, L, ...)"""
        hidden = t5_decoder.decode(self.t5, state, self._shifted(sequences))
        if state.left is None:
            return hidden
        codes = self.module["codes"]
        joined: Tensor = codes.joined(hidden, codes.left(state.left[:, 0], sequences))
        return joined

    def _shifted(self, tokens: Tensor) -> Tensor:
        """(B, b, L), -1 pads → the decoder's inputs: the start token, then all but the last."""
        start = torch.full_like(tokens[:, :, :1], self.t5.config.decoder_start_token_id)
        return torch.cat([start, tokens[:, :, :-1].clamp_min(0)], dim=-1)

    def _head(self, hidden: Tensor, columns: Tensor | None) -> Tensor:
        weight = self.t5.lm_head.weight
        width = weight.shape[1]
        logits = linear(hidden[..., :width], (weight if columns is None else rows_of(weight, columns)).to(hidden.dtype))
        if hidden.shape[-1] > width:  # the code head's part
            logits = logits + self.module["codes"].logits(hidden[..., width:], columns)
        return logits

    # ------------------------------------------------------------------------------------------------ decoding
    def reads(self, query: str) -> bool:
        return reads(self.tokenizer, query) if self._encoder is None else self._encoder.reads(query)

    def prefill(self, queries: Sequence[str]) -> t5_decoder.DecoderState:
        return self._read(queries)

    def query_vectors(self, state: t5_decoder.DecoderState) -> Tensor:
        if state.left is None:
            raise UsageError("search.self_guidance needs a generator that was trained with backbone.code_head")
        return state.left[:, 0]

    def step(
        self, state: t5_decoder.DecoderState, symbols: Tensor | None, parents: Tensor | None, columns: Tensor | None
    ) -> Tensor:
        if symbols is None:
            symbols = torch.full((len(state.query_mask), 1), self.t5.config.decoder_start_token_id, device=self._device)
        hidden, left = t5_decoder.step(self.t5, state, symbols, parents), state.left
        if left is not None:
            if state.depth > 1:  # the codes follow the start token
                if parents is not None:
                    left = left.gather(1, parents[..., None].expand(-1, -1, left.shape[2]))
                left = left - self.module["codes"].vectors[symbols]
            state.left = left
            hidden = self.module["codes"].joined(hidden[:, :, None], left[:, :, None], state.depth - 1)[:, :, 0]
        return self._head(hidden, columns)

    # ------------------------------------------------------------------------------------------------ disk
    def save(self, folder: Path) -> None:
        self.t5.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        if self._encoder is not None:  # frozen or not, so that a run can be copied elsewhere
            self._encoder.save(folder)
        for name in self._projections():
            save_file(self.module[name].state_dict(), folder / f"{name}.safetensors")
        if "codes" in self.module:
            codes = self.module["codes"]
            saved(folder, "codes", codes.state_dict(), {"hidden": codes.mlp[0].out_features})
        facts = {"first_symbol": self.vocabulary.first, "untied": untied(self.t5), "projections": self._projections()}
        (folder / "genret.json").write_text(json.dumps(facts))

    def _projections(self) -> list[str]:
        return [name for name in ("from_encoder", "from_image") if name in self.module]

    def load(self, folder: Path, vokens: Vokens) -> None:
        try:
            facts = read_json(folder / "genret.json")
            self.tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
            t5 = t5_model.saved(folder, facts["untied"])
            self.vocabulary = Vocabulary(self.tokenizer, vokens, int(facts["first_symbol"]))
            self.module, self._encoder = nn.ModuleDict({"t5": t5}), None
            for name in facts.get("projections", ()):
                self.module[name] = Projection.load(folder / f"{name}.safetensors")
            if "from_encoder" in self.module:
                self._attach(TextEncoders.saved(folder))
            if (folder / "codes.json").exists():
                self.module["codes"] = CodeHead.load(*stored(folder, "codes"))
        except (
            OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError, SafetensorError, GenretError,
        ) as error:  # fmt: skip
            raise GenretError(
                f"{folder} holds no usable generator ({one_line(error)}); "
                "make it anew with: genret train --run DIR --resume"
            ) from error
        self.module.eval()
