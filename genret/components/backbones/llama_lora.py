"""Low-rank adapters (LoRA, arXiv 2106.09685) through peft, and the vocabulary's new rows, which are trained as well.

All other weights stay frozen. The rows are trained as peft's trainable tokens: whole copies of embedding and head
(`modules_to_save`) would be large and would untie tied ones.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, Literal

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from peft.utils import TrainableTokensWrapper
from pydantic import Field
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from genret import api
from genret.components.backbones.vocabulary import untied
from genret.errors import UsageError, did_you_mean

ADAPTER = "default"
WEIGHTS = "adapter_model.safetensors"


class Lora(api.Config):
    r: int = Field(16, ge=1)
    """Rank of the update of each matrix."""
    alpha: float = Field(32, gt=0)
    """The update is scaled by alpha / r."""
    dropout: float = Field(0.05, ge=0, lt=1)
    """Dropout on the adapters' inputs."""
    target_modules: Literal["auto"] | tuple[str, ...] = "auto"
    """Names of the linear layers to adapt, such as q_proj; auto: peft's choice for the architecture."""


def adapt(model: Any, options: Lora, first: int) -> PeftModel:
    """Freezes a causal language model, except adapters and the rows from `first` on of embedding and head."""
    names = None if options.target_modules == "auto" else list(options.target_modules)
    _check(model, names)
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    rows = list(range(first, embedding.num_embeddings))
    wrapped = [embedding, head] if untied(model) else [embedding]  # peft itself finds a head that is tied
    trained = {name: rows for name, part in model.named_modules() if any(part is one for one in wrapped)}
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=options.r,
        lora_alpha=options.alpha,  # type: ignore[arg-type]
        lora_dropout=options.dropout,
        target_modules=names,
        trainable_token_indices=trained if rows else None,
    )
    try:
        with warnings.catch_warnings():  # about peft and transformers; users cannot act on it
            warnings.simplefilter("ignore", FutureWarning)
            adapted = get_peft_model(model, config)
    except ValueError as error:
        raise UsageError(
            f"backbone.lora.target_modules: peft does not know what to adapt in a {type(model).__name__}; name some of "
            f"its linear layers: {', '.join(_linear(model))}"
        ) from error
    for parameter in adapted.parameters():
        if parameter.requires_grad:  # small and trained, so always in full precision
            parameter.data = parameter.data.float()
    assert isinstance(adapted, PeftModel)
    return adapted


def _check(model: Any, names: list[str] | None) -> None:
    known = _linear(model)
    for name in names or ():
        if name not in known:
            raise UsageError(
                f"backbone.lora.target_modules: {type(model).__name__} has no linear layer "
                f"'{name}'{did_you_mean(name, known)}; it has {', '.join(known)}"
            )
    if names == []:
        raise UsageError(
            "backbone.lora.target_modules is empty; name layers, set it to auto, or set backbone.lora to null"
        )


def _linear(model: Any) -> list[str]:
    """The names of the linear layers below the head, in order."""
    head = model.get_output_embeddings()
    parts = (name.rpartition(".")[2] for name, part in model.named_modules() if _is_linear(part) and part is not head)
    return list(dict.fromkeys(parts))


def _is_linear(part: nn.Module) -> bool:
    return isinstance(part, nn.Linear) or type(part).__name__ == "Conv1D"  # GPT-2's


def head_rows(head: Any, columns: Tensor, first: int) -> Tensor:
    """The rows (C, W) of a head for some tokens (C,); a head whose new rows are trained separately is not copied."""
    if not isinstance(head, TrainableTokensWrapper):
        return head.weight[columns]
    adapter: Any = head.token_adapter
    new, old = adapter.trainable_tokens_delta[ADAPTER], adapter.base_layer.weight[columns]
    return torch.where((columns >= first)[:, None], new[(columns - first).clamp_min(0)].to(old), old)


def merged(adapted: PeftModel) -> dict[str, Tensor]:
    """The weights of a plain model that computes the same as the adapted one, which is not changed."""
    model: Any = adapted.get_base_model()
    weights = {}
    with torch.no_grad():
        part: Any
        for name, part in model.named_modules():
            if isinstance(part, LoraLayer):
                old = part.get_base_layer().weight
                weights[f"{name}.weight"] = old + part.get_delta_weight(ADAPTER).to(old)  # type: ignore[attr-defined]
            elif isinstance(part, TrainableTokensWrapper):
                weights[f"{name}.weight"] = part.weight
    for key, value in model.state_dict().items():
        name = key.replace(".base_layer.", ".").replace(".token_adapter.", ".")
        if ".lora_" not in key and ".trainable_tokens_" not in key:
            weights.setdefault(name, value)
    return weights


def save_adapter(adapted: PeftModel, folder: Path, base: str, revision: str | None) -> None:
    """Saves adapters and new rows in peft's format."""
    weights = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    save_file({key: value.detach().cpu().contiguous() for key, value in weights.items()}, folder / WEIGHTS)
    config: Any = adapted.peft_config[ADAPTER]
    config.base_model_name_or_path, config.revision = base, revision
    config.inference_mode = True
    config.save_pretrained(folder)
    config.inference_mode = False


def load_adapter(adapted: PeftModel, folder: Path) -> None:
    """Loads what `save_adapter` saved into a model adapted in the same way; ValueError if it does not fit."""
    weights = load_file(folder / WEIGHTS)
    wanted = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    if {key: value.shape for key, value in weights.items()} != {key: value.shape for key, value in wanted.items()}:
        raise ValueError(f"{WEIGHTS} holds other adapters than the recipe asks for")
    set_peft_model_state_dict(adapted, weights)
