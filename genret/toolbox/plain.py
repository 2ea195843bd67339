"""Networks in torch alone, with the names of transformers' parameters, filled from its weights files.

Importing a model class of transformers takes longer than torch and transformers together; a search needs a few lines of
one. Whatever these networks do not compute exactly, `filled` leaves to transformers.

B texts   S word pieces   H heads   W width
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from genret.toolbox.weights import check_finite

WEIGHTS = "model.safetensors"


def filled(
    module: nn.Module, folder: Path, unused: tuple[str, ...] = (), same: Mapping[str, str] | None = None
) -> bool:
    """Gives `module`, made on the device "meta", the float32 weights of the folder; False if its file has others.

    `unused`: prefixes of what the file may hold besides. `same`: tensors that have another one's weights.
    Raises `GenretError` for weights that are not finite.
    """
    if not (folder / WEIGHTS).is_file():
        return False
    stored = {key: value for key, value in load_file(folder / WEIGHTS).items() if not key.startswith(unused)}
    stored |= {key: stored[source] for key, source in (same or {}).items() if source in stored}
    wanted = {key: value.shape for key, value in module.state_dict().items()}
    if {key: value.shape for key, value in stored.items()} != wanted:
        return False
    module.load_state_dict({key: value.float() for key, value in stored.items()}, assign=True)
    check_finite(folder, module.named_parameters())
    return True


def table(rows: int, width: int) -> nn.Embedding:
    """An embedding that is not initialized: on "meta", `normal_` would import torch's compiler, for half a second."""
    return nn.Embedding(rows, width, _weight=torch.empty(rows, width))


class Encoded(NamedTuple):
    last_hidden_state: Tensor
    """(B, S, W)"""


class Bert(nn.Module):
    """The encoder of BERT without its pooler, for inference: MiniLM, BGE, E5 and many more. Devlin et al. 2018."""

    def __init__(self, config: Any):
        super().__init__()
        self.config = config
        width, epsilon = config.hidden_size, config.layer_norm_eps
        self.embeddings = nn.ModuleDict({
            "word_embeddings": table(config.vocab_size, width),
            "position_embeddings": table(config.max_position_embeddings, width),
            "token_type_embeddings": table(config.type_vocab_size, width),
            "LayerNorm": nn.LayerNorm(width, eps=epsilon),
        })  # fmt: skip
        layers = nn.ModuleList(
            _bert_layer(width, config.intermediate_size, epsilon) for _ in range(config.num_hidden_layers)
        )
        self.encoder = nn.ModuleDict({"layer": layers})

    @classmethod
    def opened(cls, config: Any, folder: Path) -> Bert | None:
        """The model of a folder with these settings of transformers; None if it is another, or stored otherwise."""
        usual = {"model_type": "bert", "hidden_act": "gelu", "is_decoder": False}
        if any(getattr(config, key, None) != value for key, value in usual.items()):
            return None
        if getattr(config, "position_embedding_type", "absolute") != "absolute":
            return None
        with torch.device("meta"):
            model = cls(config)
        return model.eval().requires_grad_(False) if filled(model, folder, unused=("pooler.",)) else None

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def forward(self, input_ids: Tensor, attention_mask: Tensor, **_: Any) -> Encoded:
        """(B, S) ids and 1 at real pieces; all texts are of the first type."""
        parts: Any = self.embeddings
        types = parts["token_type_embeddings"](torch.zeros_like(input_ids))
        places = parts["position_embeddings"](torch.arange(input_ids.shape[1], device=input_ids.device)[None])
        hidden = parts["LayerNorm"](parts["word_embeddings"](input_ids) + types + places)
        mask = None
        if not bool(attention_mask.all()):
            mask = attention_mask.bool()[:, None, None].expand(-1, -1, input_ids.shape[1], -1)  # (B, 1, S, S)
        layers: Any = self.encoder["layer"]
        for layer in layers:
            hidden = self._layer(layer, hidden, mask)
        return Encoded(hidden)

    def _layer(self, layer: Any, hidden: Tensor, mask: Tensor | None) -> Tensor:
        attention, shape = layer["attention"], (*hidden.shape[:2], self.config.num_attention_heads, -1)
        projections = (attention["self"][name] for name in ("query", "key", "value"))
        query, key, value = (project(hidden).view(shape).transpose(1, 2) for project in projections)  # (B, H, S, d)
        found = F.scaled_dot_product_attention(query, key, value, attn_mask=mask).transpose(1, 2).flatten(2)
        hidden = _added(attention["output"], found, hidden)
        return _added(layer["output"], F.gelu(layer["intermediate"]["dense"](hidden)), hidden)

    def save_pretrained(self, folder: Path) -> None:
        """Writes settings and weights as transformers does."""
        self.config.save_pretrained(folder)
        save_file(
            {key: value.contiguous() for key, value in self.state_dict().items()}, folder / WEIGHTS, {"format": "pt"}
        )


def _bert_layer(width: int, wide: int, epsilon: float) -> nn.ModuleDict:
    def linear(inner: int, outer: int) -> nn.ModuleDict:
        return nn.ModuleDict({"dense": nn.Linear(inner, outer)})

    def normed(inner: int) -> nn.ModuleDict:
        return nn.ModuleDict({"dense": nn.Linear(inner, width), "LayerNorm": nn.LayerNorm(width, eps=epsilon)})

    attention = nn.ModuleDict({name: nn.Linear(width, width) for name in ("query", "key", "value")})
    return nn.ModuleDict({
        "attention": nn.ModuleDict({"self": attention, "output": normed(width)}),
        "intermediate": linear(width, wide),
        "output": normed(wide),
    })  # fmt: skip


def _added(part: Any, inner: Tensor, hidden: Tensor) -> Tensor:
    added: Tensor = part["LayerNorm"](part["dense"](inner) + hidden)
    return added
