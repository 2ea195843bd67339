"""Vision models of transformers as image towers: ViT, DINO, Swin, ConvNeXt, and the image half of CLIP and SigLIP."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from genret.components.encoders.preprocess import Preprocess, from_transformers
from genret.components.encoders.towers import ImageTower, ImageTowerConfig
from genret.errors import GenretError
from genret.toolbox.weights import check_loaded, fingerprint, has_weights, loading, model_folder, read_json


class HuggingFaceImage(ImageTowerConfig):
    """A vision model of transformers: ViT, DINO, CLIP, SigLIP ..."""

    type: Literal["huggingface"] = "huggingface"
    model: str = "facebook/dinov2-base"
    """Name on the model hub, local folder or registered weights."""
    pooling: Literal["auto", "cls", "mean", "pooler"] = "auto"
    """Pooling; auto: the joint space of CLIP and SigLIP, otherwise the class token, otherwise the mean."""


class HuggingFaceImageTower(ImageTower):
    config: HuggingFaceImage
    _preprocess: Preprocess | None = None

    @property
    def folder(self) -> Path:
        return model_folder(self.resolve_weights(self.config.model), self.config.revision)

    @property
    def preprocess(self) -> Preprocess:
        if self._preprocess is None:
            self._preprocess = read_preprocess(self.folder).with_resize(self.config.resize)
        return self._preprocess

    def identity(self) -> dict[str, Any]:
        return self.config.model_dump(include={"type", "pooling", "resize"}) | {"weights": fingerprint(self.folder)}

    def build(self) -> nn.Module:
        return load_model(self.folder, may_miss=() if self.config.pooling == "pooler" else ("pooler",))

    def forward(self, inputs: Tensor) -> Tensor:
        pooling = self.config.pooling
        if pooling == "auto" and hasattr(self.module, "get_image_features"):
            return joint_vector(self.module.get_image_features(pixel_values=inputs))
        module = getattr(self.module, "vision_model", self.module)  # the image half of a dual model
        extra: dict[str, Tensor] = {}
        if module.config.model_type == "vit_mae":  # shuffles its patches at random unless noise is given
            patches = module.embeddings.patch_embeddings.num_patches
            extra["noise"] = torch.arange(patches, device=inputs.device).expand(len(inputs), -1)
        output = module(pixel_values=inputs, **extra)
        if pooling == "pooler":
            if getattr(output, "pooler_output", None) is None:
                raise GenretError(f"'{self.config.model}' has no pooler; set pooling to cls or mean")
            return output.pooler_output.flatten(1)
        states = output.last_hidden_state
        if states.ndim == 4:  # a convolutional net: (B, D, H, W)
            return states.mean((2, 3))
        if pooling == "auto":
            trained_on_mean = getattr(module.config, "use_mean_pooling", False)  # BEiT and similar models
            pooling = "cls" if _has_class_token(module) and not trained_on_mean else "mean"
        if pooling == "cls":
            if not _has_class_token(module):
                raise GenretError(f"'{self.config.model}' has no class token; set pooling to mean")
            return states[:, 0]
        return states[:, _num_prefix_tokens(module, states.shape[1], inputs.shape[-1]) :].mean(1)


def _has_class_token(module: Any) -> bool:
    if module.config.model_type == "dinov3_convnext":  # its first token is the mean of the feature map
        return True
    return any(name.endswith(("cls_token", "class_embedding")) for name, _ in module.named_parameters())


def _num_prefix_tokens(module: Any, num_tokens: int, side: int) -> int:
    """The number of tokens before the patches: class, register and distillation tokens."""
    patch = getattr(module.config, "patch_size", None)
    if isinstance(patch, int) and (side // patch) ** 2 <= num_tokens:
        return num_tokens - (side // patch) ** 2
    return int(_has_class_token(module))


def read_preprocess(folder: Path) -> Preprocess:
    """The preprocessing of a folder's model."""
    settings = read_json(folder / "preprocessor_config.json") or read_json(folder / "processor_config.json")
    if settings is None:
        raise GenretError(f"{folder} has no preprocessor_config.json, so nobody knows how its pictures are prepared")
    return from_transformers(settings, str(folder))


def load_model(folder: Path, may_miss: tuple[str, ...] = ()) -> nn.Module:
    """A transformers model; missing weights are an error, since those layers would be random."""
    from transformers import AutoModel

    has_weights(folder)
    settings = read_json(folder / "config.json") or {}
    whole = {"mask_ratio": 0.0} if settings.get("model_type") == "vit_mae" else {}  # keep all patches
    with loading(f"the model in {folder}"):
        model, report = AutoModel.from_pretrained(
            folder,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            dtype=torch.float32,
            output_loading_info=True,
            **whole,
        )
    check_loaded(model, report, folder, [f"{name}." for name in may_miss])
    return model


def joint_vector(output: Any) -> Tensor:
    """`get_image_features` returns a tensor up to transformers 4 and an output object since."""
    vectors = output if isinstance(output, Tensor) else output.pooler_output
    if vectors.ndim != 2:
        raise GenretError(
            "this model has no joint space of one vector per picture and text; take CLIP, SigLIP or their kin"
        )
    return vectors
