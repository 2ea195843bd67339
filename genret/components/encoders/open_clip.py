"""Models of open_clip: by name and pretrained tag, from the hub, or from a local folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from genret.components.encoders.finetune import Finetune
from genret.components.encoders.joint import JointEncoder
from genret.components.encoders.preprocess import Preprocess, from_open_clip
from genret.components.encoders.towers import ImageTower, ImageTowerConfig, TextTower, TowerConfig
from genret.errors import GenretError, UnknownName
from genret.toolbox.weights import PATTERNS, fingerprint, loading, model_folder, weights_file

WEIGHTS = ("open_clip_model.safetensors", "model.safetensors")
MODEL = "ViT-B-32"
TAG = "laion2b_s34b_b79k"


class OpenCLIPModel(TowerConfig):
    model: str = MODEL
    """Name in open_clip, `org/name` on the model hub, local folder or registered weights."""
    pretrained: str | None = TAG
    """open_clip's tag of a named model's weights, or a safetensors file; not for folders, which hold their weights."""


class OpenCLIPImage(OpenCLIPModel, ImageTowerConfig):
    """The image half of an open_clip model."""

    type: Literal["open-clip"] = "open-clip"


class OpenCLIPText(OpenCLIPModel):
    """The text half of an open_clip model."""

    type: Literal["open-clip"] = "open-clip"


class OpenCLIPSource:
    """Resolves a model and loads it once for both towers."""

    def __init__(self, model: str, pretrained: str | None, revision: str | None, resolve: Callable[[str], str] = str):
        self.name = model
        self.model = resolve(model)
        self.pretrained = pretrained
        self.revision = revision
        self._loaded: nn.Module | None = None

    def is_folder(self) -> bool:
        """Whether the model is a local or hub folder rather than a name in open_clip."""
        import open_clip

        if Path(self.model).expanduser().is_dir():
            return True
        return "/" in self.model and self.model.replace("/", "-") not in open_clip.list_models()

    def folder(self) -> Path:
        return model_folder(self.model, self.revision)

    def identity(self) -> dict[str, Any]:
        if self.is_folder():
            return {"weights": fingerprint(self.folder())}
        return {"model": self.model, "weights": fingerprint(self._named_weights()[0])}

    def _named_weights(self) -> tuple[Path, dict[str, Any]]:
        """The safetensors file of a model named in open_clip, and the settings of its tag."""
        import open_clip

        name = self.model.replace("/", "-")
        if name not in open_clip.list_models():
            raise UnknownName("open_clip model", self.model, open_clip.list_models(), "or give a local folder")
        if self.pretrained is None:
            raise GenretError(f"the open_clip model '{self.model}' needs `pretrained`: a tag or a safetensors file")
        if (path := Path(self.pretrained).expanduser()).is_file():
            if path.suffix != ".safetensors":
                raise GenretError(f"{path} is no safetensors file; genret reads no pickles: convert it first")
            return path, {}
        tags = open_clip.list_pretrained_tags_by_model(name)
        if self.pretrained not in tags:
            raise UnknownName(f"pretrained tag of {self.model}", self.pretrained, tags, "or give a safetensors file")
        card = open_clip.get_pretrained_cfg(name, self.pretrained)
        repository = str(card.get("hf_hub", "")).rpartition("/")[0]
        if not repository:
            raise GenretError(
                f"open_clip has '{self.pretrained}' of {self.model} as a pickle only; other tags: {', '.join(tags)}"
            )
        return weights_file(model_folder(repository, self.revision, PATTERNS), WEIGHTS), card

    def load(self) -> Any:
        """The model, both halves, with its `preprocess_cfg`."""
        if self._loaded is None:
            import open_clip

            what = f"the open_clip model '{self.name}'"
            if self.is_folder():
                folder = self.folder()
                weights_file(folder, WEIGHTS)
                with loading(what):
                    self._loaded = open_clip.create_model(f"local-dir:{folder}")
            else:
                path, card = self._named_weights()
                with loading(what):
                    self._loaded = open_clip.create_model(
                        self.model,
                        pretrained=str(path),
                        force_quick_gelu=bool(card.get("quick_gelu")),  # the activation of the tag
                        force_preprocess_cfg={key: card[key] for key in _PREPROCESS if card.get(key) is not None},
                    )
        return self._loaded

    def tokenizer(self) -> Any:
        import open_clip

        try:
            with loading(f"the tokenizer of the open_clip model '{self.name}'"):
                return open_clip.get_tokenizer(f"local-dir:{self.folder()}" if self.is_folder() else self.model)
        except GenretError as error:  # SigLIP and others have their own tokenizers, which open_clip downloads by name
            raise GenretError(
                f"{error}; go online once, or give a local folder with the model and its tokenizer"
            ) from error


_PREPROCESS = ("mean", "std", "interpolation", "resize_mode", "fill_color")


class OpenCLIPImageTower(ImageTower):
    config: OpenCLIPImage

    def __init__(self, config: Any, resolve_weights: Callable[[str], str] = str, source: OpenCLIPSource | None = None):
        super().__init__(config, resolve_weights)
        self.source = source or OpenCLIPSource(config.model, config.pretrained, config.revision, resolve_weights)

    def identity(self) -> dict[str, Any]:
        return self.config.model_dump(include={"type", "resize"}) | self.source.identity()

    @property
    def preprocess(self) -> Preprocess:
        settings = self.source.load().visual.preprocess_cfg
        return from_open_clip(settings, f"the open_clip model '{self.config.model}'").with_resize(self.config.resize)

    def build(self) -> nn.Module:
        return self.source.load()

    def forward(self, inputs: Tensor) -> Tensor:
        return self.module.encode_image(inputs)


class OpenCLIPTextTower(TextTower):
    config: OpenCLIPText
    _tokenizer: Any = None

    def __init__(self, config: Any, resolve_weights: Callable[[str], str] = str, source: OpenCLIPSource | None = None):
        super().__init__(config, resolve_weights)
        self.source = source or OpenCLIPSource(config.model, config.pretrained, config.revision, resolve_weights)

    def identity(self) -> dict[str, Any]:
        return {"type": "open-clip"} | self.source.identity()

    def build(self) -> nn.Module:
        self._tokenizer = self.source.tokenizer()
        return self.source.load()

    def forward(self, texts: Sequence[str]) -> Tensor:
        module = self.module
        return module.encode_text(self._tokenizer(list(texts)).to(self.device))


class OpenCLIPEncoder(JointEncoder):
    """Any model of open_clip: CLIP, SigLIP, MetaCLIP, DFN ..."""

    class Config(OpenCLIPModel, ImageTowerConfig):
        finetune: Finetune | None = None
        """How the towers are trained; null: they are frozen."""

    def __init__(self, config: Any = None, **resources: Any):
        super().__init__(config, **resources)
        c = self.config
        source = OpenCLIPSource(c.model, c.pretrained, c.revision, self.resolve_weights)
        both = {"model": c.model, "pretrained": c.pretrained, "revision": c.revision, "bf16": c.bf16}
        self.image = OpenCLIPImageTower(OpenCLIPImage(**both, resize=c.resize), self.resolve_weights, source)
        self.text = OpenCLIPTextTower(OpenCLIPText(**both), self.resolve_weights, source)
