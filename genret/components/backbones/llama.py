"""Decoder-only language models that generate identifiers, such as LLaMA, trained whole or by low-rank adapters."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import torch
from peft import PeftModel
from pydantic import Field, model_validator
from torch import Tensor
from transformers import AutoTokenizer, GenerationConfig

from genret import api
from genret.api import Backbone, Identifiers, Vokens
from genret.components.backbones import llama_lora, llama_model, llama_tree
from genret.components.backbones.llama_lora import Lora
from genret.components.backbones.tokenizers import train_tokenizer
from genret.components.backbones.vocabulary import Vocabulary, grow, sequence_log_probs, wants_copy
from genret.errors import GenretError
from genret.kit.files import read_json
from genret.toolbox.saving import reading
from genret.toolbox.weights import fingerprint, loading, model_folder


class LlamaBackbone(Backbone):
    """Decoder-only: reads the query as a prompt and continues with the identifier (LLaMA, Mistral, Qwen, SmolLM, Gemma;
    paper, Table 6)."""

    class Config(api.Config):
        model: str | None = None
        """Name on the model hub, local folder or registered weights; null builds a small LLaMA by the sizes below."""
        revision: str | None = None
        """Commit of a hub model, so that a recipe always loads the same weights."""
        dtype: Literal["float32", "bfloat16"] = "float32"
        """Data type of the pretrained weights; bfloat16 takes half the memory and needs `lora`."""
        lora: Lora | None = None
        """Low-rank adapters beside frozen weights; null trains all weights."""
        save: Literal["merged", "adapter"] = "merged"
        """With `lora`: merged saves one plain model; adapter saves only what was trained, and needs `model`."""
        gradient_checkpointing: bool = False
        """Recomputes activations in the backward pass (gradient checkpointing): slower, with less memory."""
        d_model: int = Field(256, ge=8)
        """Width of a LLaMA built here."""
        d_ff: int = Field(768, ge=8)
        """Width of the feed-forward layers."""
        num_layers: int = Field(4, ge=1)
        """Number of layers."""
        num_heads: int = Field(4, ge=1)
        """Attention heads of each layer."""
        dropout: float | None = Field(None, ge=0, lt=1)
        """Dropout of attention; null keeps the pretrained model's value; 0 for a model built here."""
        vocab_size: int = Field(4000, ge=64)
        """Maximum vocabulary size of the tokenizer trained on the captions."""
        prompt: str = "{query}\n=>"
        """Prompt of the model; {query} stands for the query."""
        max_query_tokens: int = Field(64, ge=4, le=4096)
        """Maximum query length in tokens; longer queries are truncated."""
        copy_code_vectors: bool | Literal["auto"] = "auto"
        """Whether to initialize the new rows with the identifier's code vectors (paper 3.2); auto: if it has any."""

        @model_validator(mode="after")
        def _fits(self) -> LlamaBackbone.Config:
            if self.prompt.count("{query}") != 1:
                raise ValueError("prompt must hold {query} once, where the query is to stand")
            if self.model is None and self.lora is not None:
                raise ValueError("lora adapts a pretrained model; name one with model, or set lora to null")
            if self.lora is None and self.dtype != "float32":
                raise ValueError("dtype bfloat16 is too coarse to train all weights in; set lora, or dtype to float32")
            if self.model is None and self.d_model % (2 * self.num_heads):
                raise ValueError(f"d_model ({self.d_model}) must be a multiple of twice num_heads ({self.num_heads})")
            return self

    def __init__(self, config: Any = None, **resources: Any):
        super().__init__(config, **resources)
        self.module: Any = None
        self.tokenizer: Any = None
        self.vocabulary: Any = None

    # ------------------------------------------------------------------------------------------------ building
    def build(
        self, vokens: Vokens, code_vectors: Tensor | None, texts: Iterable[str], seed: int, feature_width: int = 0
    ) -> None:
        copies = wants_copy(self.config.copy_code_vectors, code_vectors)
        torch.manual_seed(seed)
        if self.config.model is None:
            words = chain([self.config.prompt.replace("{query}", " ")], texts)
            self.tokenizer = train_tokenizer(words, self.config.vocab_size, byte_fallback=not vokens.sizes)
            model = llama_model.small(self.config, len(self.tokenizer))
        else:
            folder = model_folder(self.resolve_weights(self.config.model), self.config.revision)
            with loading(f"the causal language model {self.config.model}"):
                self.tokenizer, model = llama_model.opened(folder, self.config)
        self._grow(model, vokens)
        if copies:
            assert code_vectors is not None
            self.vocabulary.copy_code_vectors(model, code_vectors)
        self._adapt(model)
        self._check()

    def _grow(self, model: Any, vokens: Vokens) -> None:
        model.generation_config = GenerationConfig()  # ignore the generation settings of model files
        self.vocabulary = Vocabulary(self.tokenizer, vokens, model.get_input_embeddings().num_embeddings)
        if vokens.num_symbols:
            grow(model, vokens.num_symbols)

    def _adapt(self, model: Any) -> None:
        lora = self.config.lora
        self.module = model if lora is None else llama_lora.adapt(model, lora, self.vocabulary.first)
        if self.config.gradient_checkpointing:
            llama_model.checkpoint_layers(model)

    @torch.no_grad()
    def _check(self) -> None:
        """Rejects a model that tree attention or `_head` would compute wrongly, by a trial run."""
        self.module.eval()
        prompts, mask = self._prompts(["a", "b a"])
        beams = torch.tensor([[[2], [1]]] * 2, device=self._device)
        with llama_model.fitting(self._model):
            shared = self._head(llama_tree.sequences(self._decoder, prompts, mask, beams)[1, 1, 1], None)
            alone = self._model(torch.cat([prompts[-1:, mask[-1]], beams[-1:, 1]], dim=1)).logits[0, -1]
            if (shared - alone).abs().max() > (1e-3 if self.config.dtype == "float32" else 0.1) * alone.abs().max():
                raise ValueError("with a shared prompt its logits are others")

    @property
    def _model(self) -> Any:
        """The transformers model, with or without adapters in it."""
        return self.module.get_base_model() if isinstance(self.module, PeftModel) else self.module

    @property
    def _device(self) -> torch.device:
        return next(self.module.parameters()).device

    @property
    def _decoder(self) -> Any:
        return self._model.base_model

    # ------------------------------------------------------------------------------------------------ tokens
    @property
    def end_token(self) -> int:  # type: ignore[override]
        return self.vocabulary.end_token

    @property
    def vocab_size(self) -> int:  # type: ignore[override]
        return self.vocabulary.first + self.vocabulary.vokens.num_symbols

    def tokens(self, identifiers: Identifiers) -> Tensor:
        return self.vocabulary.tokens(identifiers)

    def level_tokens(self, level: int) -> Tensor | None:
        return self.vocabulary.level_tokens(level, self._device)

    def _prompts(self, queries: Sequence[str]) -> tuple[Tensor, Tensor]:
        """(B, S) token ids padded on the left, and (B, S) True at real tokens."""
        most = self.config.max_query_tokens
        cut = self.tokenizer(list(queries), add_special_tokens=False, truncation=True, max_length=most + 1)["input_ids"]
        texts = [
            self.config.prompt.replace("{query}", query if len(ids) <= most else self.tokenizer.decode(ids[:most]))
            for query, ids in zip(queries, cut, strict=True)
        ]
        rows = [_unended(ids, self.end_token) for ids in self.tokenizer(texts)["input_ids"]]
        length = max(map(len, rows))
        mask = torch.tensor([[False] * (length - len(row)) + [True] * len(row) for row in rows], device=self._device)
        ids = torch.tensor([[0] * (length - len(row)) + row for row in rows], device=self._device)
        return ids, mask

    # ------------------------------------------------------------------------------------------------ training
    def logits(self, queries: Sequence[str], targets: Tensor) -> Tensor:
        return self._head(self._read(queries, targets[:, None])[:, 0], None)

    def level_logits(self, queries: Sequence[str], targets: Tensor, columns: Sequence[Tensor | None]) -> list[Tensor]:
        hidden = self._read(queries, targets[:, None])[:, 0]
        return [self._head(here, own) for here, own in zip(hidden.unbind(1), columns, strict=True)]

    def score(self, queries: Sequence[str], sequences: Tensor, columns: Sequence[Tensor | None]) -> Tensor:
        return sequence_log_probs(self._read(queries, sequences), sequences, columns, self._head)

    def _read(self, queries: Sequence[str], sequences: Tensor) -> Tensor:
        """sequences (B, b, L), -1 pads → hidden (B, b, L, W) before each of their tokens."""
        return llama_tree.sequences(self._decoder, *self._prompts(queries), sequences[:, :, :-1].clamp_min(0))

    def _head(self, hidden: Tensor, columns: Tensor | None) -> Tensor:
        head = self._model.get_output_embeddings()
        if columns is None:
            logits = head(hidden)
        else:
            logits = hidden @ llama_lora.head_rows(head, columns, self.vocabulary.first).T.to(hidden.dtype)
        most = getattr(self._model.config, "final_logit_softcapping", None)  # Gemma 2
        return logits if most is None else most * torch.tanh(logits / most)

    # ------------------------------------------------------------------------------------------------ decoding
    def prefill(self, queries: Sequence[str]) -> llama_tree.TreeState:
        return llama_tree.read(self._decoder, *self._prompts(queries))

    def step(
        self, state: llama_tree.TreeState, symbols: Tensor | None, parents: Tensor | None, columns: Tensor | None
    ) -> Tensor:
        hidden = state.hidden if symbols is None else llama_tree.extend(self._decoder, state, symbols, parents)
        return self._head(hidden, columns)

    # ------------------------------------------------------------------------------------------------ disk
    def save(self, folder: Path) -> None:
        facts: dict[str, Any] = {"first_symbol": self.vocabulary.first, "base": None}
        if not isinstance(self.module, PeftModel):
            self.module.save_pretrained(folder)
        elif self.config.save == "merged":
            with torch.device("meta"):
                plain = type(self._model)(self._model.config)
            plain.generation_config = GenerationConfig()
            plain.save_pretrained(folder, state_dict=llama_lora.merged(self.module))
        else:
            facts["base"] = self._base()
            llama_lora.save_adapter(self.module, folder, facts["base"]["model"], facts["base"]["revision"])
        self.tokenizer.save_pretrained(folder)
        (folder / "genret.json").write_text(json.dumps(facts))

    def _base(self) -> dict[str, str | None]:
        """The base model of an adapter: a hub's model at a commit, or a local folder with these very files."""
        name = self.resolve_weights(self.config.model)
        folder = model_folder(name, self.config.revision)
        local = folder == Path(name).expanduser()
        known = {"revision": None, "fingerprint": fingerprint(folder)} if local else {"revision": folder.name}
        return {"model": self.config.model, **known}

    def load(self, folder: Path, vokens: Vokens) -> None:
        with reading(folder, "generator"):
            facts = read_json(folder / "genret.json")
            first, base = int(facts["first_symbol"]), facts["base"]
            if base is None:
                self.tokenizer, self.module = llama_model.opened(folder, self.config)
                self.vocabulary = Vocabulary(self.tokenizer, vokens, first)
            else:
                self._load_adapter(folder, vokens, base)
        self.module.eval()

    def _load_adapter(self, folder: Path, vokens: Vokens, base: dict[str, str | None]) -> None:
        name = self.resolve_weights(str(base["model"]))
        source = model_folder(name, base["revision"])
        if base.get("fingerprint") not in (None, fingerprint(source)):
            raise GenretError(f"its adapters belong to other weights than are in {source} now")
        with loading(f"the causal language model {base['model']}"):
            _, model = llama_model.opened(source, self.config)
        self.tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        self._grow(model, vokens)
        self._adapt(model)
        llama_lora.load_adapter(self.module, folder)


def _unended(ids: list[int], end: int) -> list[int]:
    """Without the end token that some tokenizers add: the model has to continue the prompt."""
    return ids[:-1] if len(ids) > 1 and ids[-1] == end else ids
