"""Any vision model of timm as an image tower: by name, by name with other weights, or a local folder."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from genret.components.encoders.preprocess import Preprocess, from_timm
from genret.components.encoders.towers import SIZE, ImageTower, ImageTowerConfig
from genret.errors import GenretError, UnknownName
from genret.toolbox.folding import folded
from genret.toolbox.weights import PATTERNS, fingerprint, loading, model_folder, read_json, weights_file


class TimmImage(ImageTowerConfig):
    """A vision model of timm."""

    type: Literal["timm"] = "timm"
    model: str = "tf_efficientnet_lite0"
    """Name in timm, or a local folder as timm saves it (config.json, model.safetensors)."""
    weights: str | None = None
    """Local folder or safetensors file, registered weights, or a hub name; null: the model's default."""
    pretrained: bool = True
    """false: random weights, for tests and comparisons."""
    seed: int = 0
    """Seed of random weights."""
    image_size: int | None = SIZE
    """Side in pixels; null: the model's default."""
    stages: int = Field(0, ge=0, le=8)
    """Number of last stages whose mean feature maps are appended to the vector; 0: the final features only."""
    grid: int = Field(1, ge=1, le=8)
    """Those maps are averaged over grid x grid cells, so that the vector tells where in the image things are."""
    fold: bool = False
    """Whether batch norms are folded into the convolutions before them, for networks that have such: faster, and up to
    rounding the same vectors."""


PIXELS_AT_A_TIME = 300_000
LEAST_AT_A_TIME = 8


class TimmImageTower(ImageTower):
    config: TimmImage
    _preprocess: Preprocess | None = None

    @property
    def at_a_time(self) -> int:
        """On a processor, as many as its caches hold of a convolutional network's first maps: more take up to twice as
        long each (docs/performance.md)."""
        if self.device.type != "cpu":
            return super().at_a_time
        return max(LEAST_AT_A_TIME, PIXELS_AT_A_TIME // self.preprocess.size**2)

    @property
    def preprocess(self) -> Preprocess:
        if self._preprocess is None:
            assert self.module is not None, "building sets the preprocessing"
        assert self._preprocess is not None
        return self._preprocess

    def identity(self) -> dict[str, Any]:
        c = self.config
        folder = _folder(c.model)
        facts = c.model_dump(include={"type", "image_size", "resize", "stages"})
        facts |= {name: getattr(c, name) for name, off in (("fold", False), ("grid", 1)) if getattr(c, name) != off}
        if not c.pretrained:
            return facts | {"model": fingerprint(folder) if folder else c.model, "random": c.seed}
        return facts | {"model": None if folder else c.model, "weights": fingerprint(self._weights())}

    def _weights(self) -> Path:
        """The safetensors file, or the folder that holds it and its settings."""
        c = self.config
        if c.weights is not None:
            path = Path(self.resolve_weights(c.weights)).expanduser()
            if path.is_file():
                if path.suffix != ".safetensors":
                    raise GenretError(f"{path} is no safetensors file; genret reads no pickles: convert it first")
                return path
            return model_folder(str(path) if path.exists() else self.resolve_weights(c.weights), c.revision)
        return _folder(c.model) or self._hub_weights()

    def _hub_weights(self) -> Path:
        import timm

        name = self.config.model
        if timm.is_model(name) and (card := timm.get_pretrained_cfg(name)) is not None and card.hf_hub_id:
            return model_folder(card.hf_hub_id, self.config.revision, PATTERNS)
        if timm.is_model(name):
            raise GenretError(
                f"timm has no pretrained weights on the hub for '{name}'; give weights: a local folder, or pretrained: "
                "false for random ones"
            )
        raise UnknownName("timm model", name, _near(name), "or give a local folder")

    def build(self) -> nn.Module:
        import timm

        c = self.config
        source = self._weights() if c.pretrained else _folder(c.model)
        folder = source if source is not None and source.is_dir() else None
        settings = (read_json(folder / "config.json") if folder else None) or {}
        name = settings.get("architecture", c.model) if _folder(c.model) else c.model
        if not timm.is_model(name):
            raise UnknownName("timm model", name, _near(name), "or give a local folder")
        card = settings.get("pretrained_cfg", {}) if settings.get("architecture") == name.split(".")[0] else {}
        overlay = {key: value for key, value in card.items() if key not in ("hf_hub_id", "url", "file", "tag")}
        arguments = dict(settings.get("model_args", {}) if card else {}, num_classes=0)  # vectors, not classes
        known = timm.get_pretrained_cfg(name)
        if c.image_size and known is not None and known.fixed_input_size:
            arguments["img_size"] = c.image_size
        if c.pretrained:
            assert source is not None
            overlay |= {"file": str(weights_file(source) if folder else source), "hf_hub_id": None, "url": None}
        with loading(f"the timm model '{c.model}'"), torch.random.fork_rng(devices=[]):
            torch.manual_seed(c.seed)
            model = timm.create_model(name, pretrained=c.pretrained, pretrained_cfg_overlay=overlay, **arguments)
            data = timm.data.resolve_model_data_config(model)
        self._preprocess = from_timm(data, c.image_size, f"the timm model '{c.model}'").with_resize(c.resize)
        for parameter in model.parameters():
            if parameter.ndim == 4:  # one call for the model fails if it has a 3D convolution
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        if c.fold:
            side = self._preprocess.size
            example = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0))
            folded(model.eval(), example, partial(self._vector, model), f"the timm model '{c.model}'")
        return model

    def forward(self, inputs: Tensor) -> Tensor:
        return self._vector(self.module, inputs)

    def _vector(self, module: Any, inputs: Tensor) -> Tensor:
        if not self.config.stages:
            vectors: Tensor = module(inputs)
            return vectors
        final, maps = module.forward_intermediates(inputs, indices=self.config.stages)
        pooled = module.forward_head(final, pre_logits=True)
        return torch.cat([pooled.float()] + [_cells(stage, self.config.grid) for stage in maps], 1)


def _cells(stage: Tensor, grid: int) -> Tensor:
    """(B, C, H, W) → (B, C * grid * grid) means"""
    if grid == 1:
        return stage.mean((2, 3)).float()
    return F.adaptive_avg_pool2d(stage.float(), grid).flatten(1)


def _folder(name: str) -> Path | None:
    path = Path(name).expanduser()
    return path if path.is_dir() else None


def _near(name: str) -> list[str]:
    """A few similar names; timm has a thousand."""
    import difflib

    import timm

    return difflib.get_close_matches(name, timm.list_models(), n=5, cutoff=0.5)
