"""Sentence encoders from a Hugging Face folder, pooled by its settings, without the sentence-transformers package.

Its format: `modules.json` lists steps (transformer, pooling, perhaps dense layers, perhaps normalization); folders
without it are plain language models with mean pooling.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field
from safetensors.torch import load_file
from torch import Tensor, nn

from genret.components.encoders.towers import TextTower, TowerConfig, most_tokens
from genret.errors import GenretError
from genret.toolbox.weights import (
    check_loaded,
    fingerprint,
    has_weights,
    loading,
    model_folder,
    read_json,
    reads,
    weights_file,
)

Pooling = Literal["mean", "cls", "max", "last"]
ACTIVATIONS = {"Tanh": torch.tanh, "ReLU": torch.relu, "GELU": F.gelu, "Identity": lambda x: x}


class SentenceText(TowerConfig):
    """A sentence encoder, or any text model of transformers."""

    type: Literal["sentence"] = "sentence"
    model: str = "sentence-transformers/all-MiniLM-L6-v2"
    """Name on the model hub, local folder or registered weights."""
    pooling: Literal["auto", "mean", "cls", "max", "last"] = "auto"
    """Pooling of the tokens' vectors; auto: the folder's setting, otherwise the mean."""
    normalize: bool | Literal["auto"] = "auto"
    """Whether vectors have length 1; auto: the folder's setting."""
    prompt: str | None = None
    """Prefix of every text, e.g. `query: ` for E5; null: the folder's default prompt, if it has one."""
    max_tokens: int | None = Field(None, ge=4, le=8192)
    """Maximum length in tokens, longer texts are truncated; null: the folder's setting."""


class Steps(NamedTuple):
    """A folder's settings for pooling tokens to one vector."""

    pooling: Pooling = "mean"
    dense: tuple[Path, ...] = ()
    normalize: bool = False


class SentenceTextTower(TextTower):
    config: SentenceText
    _tokenizer: Any = None
    _steps = Steps()
    _prompt = ""
    _lower = False

    def identity(self) -> dict[str, Any]:
        facts = self.config.model_dump(include={"type", "pooling", "normalize", "max_tokens"})
        return facts | {"prompt": self._read_prompt(), "weights": fingerprint(self._folder())}

    def _read_prompt(self) -> str:
        return default_prompt(self._folder()) if self.config.prompt is None else self.config.prompt

    def _folder(self) -> Path:
        return model_folder(self.resolve_weights(self.config.model), self.config.revision)

    def build(self) -> nn.Module:
        from transformers import AutoConfig, AutoModel, AutoModelForTextEncoding, AutoTokenizer

        folder, c = self._folder(), self.config
        has_weights(folder)
        local: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
        with loading(f"the sentence encoder in {folder}"):
            self._tokenizer = AutoTokenizer.from_pretrained(folder, **local)
            settings = AutoConfig.from_pretrained(folder, **local)
            half = settings.is_encoder_decoder or any("EncoderModel" in name for name in settings.architectures or ())
            kind = AutoModelForTextEncoding if half else AutoModel  # only T5's encoder
            model, report = kind.from_pretrained(
                folder, use_safetensors=True, dtype=torch.float32, output_loading_info=True, **local
            )
        check_loaded(model, report, folder, ["pooler."])
        if self._tokenizer.pad_token is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        self._steps = read_steps(folder)
        said = read_json(folder / "sentence_bert_config.json") or {}
        self._lower = bool(said.get("do_lower_case"))
        self._max_tokens = most_tokens(settings, self._tokenizer, c.max_tokens or said.get("max_seq_length"))
        self._prompt = self._read_prompt()
        with loading(f"the dense layers in {folder}"):
            dense = nn.ModuleList(_Dense(step) for step in self._steps.dense)
        return nn.ModuleDict({"transformer": model, "dense": dense})

    def reads(self, text: str) -> bool:
        assert self.module is not None  # loads the tokenizer
        return reads(self._tokenizer, text.lower() if self._lower else text)

    def forward(self, texts: Sequence[str]) -> Tensor:
        module, c = self.module, self.config
        prompted = [(self._prompt + text).strip() for text in texts]
        batch = self._tokenizer(
            [text.lower() for text in prompted] if self._lower else prompted,
            padding=True,
            truncation=True,
            max_length=self._max_tokens,
            padding_side="right",
            return_tensors="pt",
        ).to(self.device)
        states = module["transformer"](**batch).last_hidden_state.float()  # (B, L, D)
        vectors = pool(states, batch["attention_mask"], self._steps.pooling if c.pooling == "auto" else c.pooling)
        for dense in module["dense"]:
            vectors = dense(vectors)
        normalize = self._steps.normalize if c.normalize == "auto" else c.normalize
        return F.normalize(vectors.float(), dim=-1) if normalize else vectors


def pool(states: Tensor, mask: Tensor, how: Pooling) -> Tensor:
    """(B, L, D), (B, L) right-padded → (B, D)"""
    if how == "cls":
        return states[:, 0]
    if how == "last":
        return states[torch.arange(len(states)), mask.sum(1).clamp_min(1) - 1]
    weights = mask.unsqueeze(-1).to(states)
    if how == "max":
        return states.masked_fill(weights == 0, -torch.inf).amax(1)
    return (states * weights).sum(1) / weights.sum(1).clamp_min(1e-9)


def read_steps(folder: Path) -> Steps:
    """Reads `modules.json` and the files that it names; unknown steps are rejected."""
    modules = read_json(folder / "modules.json")
    if modules is None:
        settings = read_json(folder / "1_Pooling" / "config.json")
        return Steps(_pooling(settings, folder)) if settings else Steps()
    steps = Steps()
    for module in modules:
        kind, inside = str(module["type"]).rpartition(".")[2], folder / str(module.get("path", ""))
        if not inside.resolve().is_relative_to(folder.resolve()):
            raise GenretError(f"{folder / 'modules.json'} points outside its folder: {module['path']}")
        if kind == "Pooling":
            steps = steps._replace(pooling=_pooling(read_json(inside / "config.json") or {}, inside))
        elif kind == "Dense":
            steps = steps._replace(dense=(*steps.dense, inside))
        elif kind == "Normalize":
            steps = steps._replace(normalize=True)
        elif kind != "Transformer":
            raise GenretError(f"{folder / 'modules.json'} has a step '{kind}' that genret does not know")
    return steps


def default_prompt(folder: Path) -> str:
    """The default prompt of `config_sentence_transformers.json`."""
    settings = read_json(folder / "config_sentence_transformers.json") or {}
    name = settings.get("default_prompt_name")
    return str((settings.get("prompts") or {}).get(name) or "") if name else ""


def _pooling(settings: dict[str, Any], folder: Path) -> Pooling:
    names: dict[str, Pooling] = {"mean": "mean", "mean_tokens": "mean", "cls": "cls", "cls_token": "cls", "max": "max"}
    names |= {"max_tokens": "max", "lasttoken": "last"}
    modes = [key.removeprefix("pooling_mode_") for key, value in settings.items() if value is True]
    given = settings.get("pooling_mode")  # in newer versions
    wanted = ([given] if isinstance(given, str) else list(given)) if given else [m for m in modes if m in names]
    others = [key for key in modes if key not in names and f"pooling_mode_{key}" in settings]
    if len(wanted) != 1 or wanted[0] not in names or others:
        raise GenretError(f"{folder / 'config.json'} pools by {wanted + others}; genret knows mean, cls, max and last")
    return names[wanted[0]]


class _Dense(nn.Linear):
    """A dense layer after pooling, as LaBSE and sentence-T5 have."""

    def __init__(self, folder: Path):
        settings = read_json(folder / "config.json") or {}
        name = str(settings.get("activation_function", "torch.nn.modules.activation.Tanh")).rpartition(".")[2]
        if name not in ACTIVATIONS:
            raise GenretError(f"{folder / 'config.json'} wants the activation '{name}', which genret does not know")
        super().__init__(settings["in_features"], settings["out_features"], bias=settings.get("bias", True))
        self.activation = ACTIVATIONS[name]
        weights = load_file(weights_file(folder))
        self.load_state_dict({key.removeprefix("linear."): value for key, value in weights.items()})

    def forward(self, vectors: Tensor) -> Tensor:
        return self.activation(super().forward(vectors))
