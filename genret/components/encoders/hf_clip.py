"""CLIP and SigLIP of transformers: two towers with a joint space, so no heads are trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from torch import Tensor, nn

from genret.components.encoders.finetune import Finetune
from genret.components.encoders.hf_vision import HuggingFaceImage, HuggingFaceImageTower, joint_vector, load_model
from genret.components.encoders.joint import JointEncoder
from genret.components.encoders.towers import ImageTowerConfig, TextTower, TowerConfig, most_tokens
from genret.errors import GenretError
from genret.toolbox.weights import fingerprint, loading, model_folder


class CLIPText(TowerConfig):
    """The text half of CLIP or SigLIP, in transformers' format."""

    type: Literal["clip"] = "clip"
    model: str = "openai/clip-vit-base-patch32"
    """Name on the model hub, local folder or registered weights."""


class CLIPTextTower(TextTower):
    """`shared`: the module already loaded for the image tower, if both towers are one model."""

    config: CLIPText
    shared: HuggingFaceImageTower | None = None
    _tokenizer: Any = None

    def identity(self) -> dict[str, Any]:
        folder = model_folder(self.resolve_weights(self.config.model), self.config.revision)
        return {"type": "clip", "weights": fingerprint(folder)}

    def build(self) -> nn.Module:
        from transformers import AutoTokenizer

        folder = model_folder(self.resolve_weights(self.config.model), self.config.revision)
        with loading(f"the tokenizer in {folder}"):
            self._tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        model = self.shared.module if self.shared else load_model(folder)
        if not hasattr(model, "get_text_features"):
            raise GenretError(f"the model in {folder} has no text half; type: clip wants CLIP or SigLIP")
        return model

    def forward(self, texts: Sequence[str]) -> Tensor:
        module = self.module
        settings = module.config.text_config
        # SigLIP was trained on texts padded to full length and pools the last position
        whole = "siglip" in module.config.model_type
        batch = self._tokenizer(
            list(texts),
            padding="max_length" if whole else True,
            truncation=True,
            max_length=most_tokens(settings, self._tokenizer),
            return_tensors="pt",
        ).to(self.device)
        inputs = {"input_ids": batch["input_ids"]}
        if not whole:
            inputs["attention_mask"] = batch["attention_mask"]
        return joint_vector(module.get_text_features(**inputs))


class CLIPEncoder(JointEncoder):
    """CLIP or SigLIP from transformers."""

    class Config(ImageTowerConfig):
        model: str = "openai/clip-vit-base-patch32"
        """Name on the model hub, local folder or registered weights."""
        finetune: Finetune | None = None
        """How the towers are trained; null: they are frozen."""

    def __init__(self, config: Any = None, **resources: Any):
        super().__init__(config, **resources)
        c = self.config
        both = {"model": c.model, "revision": c.revision, "bf16": c.bf16}
        self.image = HuggingFaceImageTower(HuggingFaceImage(**both, resize=c.resize), self.resolve_weights)
        self.text = CLIPTextTower(CLIPText(**both), self.resolve_weights)
        self.text.shared = self.image
