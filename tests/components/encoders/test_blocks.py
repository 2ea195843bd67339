"""What lies behind a tower's last blocks, against the parameters' names in each library."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from genret.components.encoders.blocks import last_parameters
from genret.components.encoders.hf_clip import CLIPEncoder
from genret.components.encoders.hf_vision import HuggingFaceImage, HuggingFaceImageTower
from genret.components.encoders.open_clip import OpenCLIPEncoder
from genret.components.encoders.sentence import SentenceText, SentenceTextTower
from genret.components.encoders.timm_tower import TimmImage, TimmImageTower
from genret.errors import GenretError


def vit(folder: Path, **options: Any) -> HuggingFaceImageTower:
    return HuggingFaceImageTower(HuggingFaceImage(model=str(folder), **options))


def timm(model: str, **options: Any) -> TimmImageTower:
    return TimmImageTower(TimmImage(model=model, pretrained=False, image_size=64, **options))


def below(tower: Any, *prefixes: str) -> set[str]:
    """The tower's parameters with these names or below modules with these names."""
    names = {name for name, _ in tower.module.named_parameters()}
    return {name for name in names if any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)}


def test_joint_models_of_both_libraries(clip_folder: Path, open_clip_folder: Path) -> None:
    clip = CLIPEncoder(CLIPEncoder.Config(model=str(clip_folder)))
    for tower, half, projection, norm in (
        (clip.image, "vision_model", "visual_projection", "post_layernorm"),
        (clip.text, "text_model", "text_projection", "final_layer_norm"),
    ):
        ends = (projection, f"{half}.{norm}")
        assert set(last_parameters(tower, 0)) == below(tower, *ends)
        assert set(last_parameters(tower, 1)) == below(tower, *ends, f"{half}.encoder.layers.1")
        every = below(tower, *ends, f"{half}.encoder.layers")
        assert set(last_parameters(tower, 2)) == set(last_parameters(tower, 9)) == every
        assert set(last_parameters(tower, None)) == below(tower, projection, half)
    ours = OpenCLIPEncoder(OpenCLIPEncoder.Config(model=str(open_clip_folder)))
    image = below(ours.image, "visual.transformer.resblocks.1", "visual.ln_post", "visual.proj")
    text = below(ours.text, "transformer.resblocks.1", "ln_final", "text_projection")
    assert set(last_parameters(ours.image, 1)) == image and set(last_parameters(ours.text, 1)) == text
    assert set(last_parameters(ours.image, None)) == below(ours.image, "visual")
    assert not any(parameter.requires_grad for parameter in ours.image.module.parameters())


def test_single_towers(vit_folder: Path, bert_folder: Path) -> None:
    tower = vit(vit_folder)  # takes the class token: the pooler is never used
    assert set(last_parameters(tower, 1)) == below(tower, "encoder.layer.1", "layers.1", "layernorm")
    pooled = vit(vit_folder, pooling="pooler")
    assert set(last_parameters(pooled, 1)) == below(pooled, "encoder.layer.1", "layers.1", "layernorm", "pooler")
    words = SentenceTextTower(SentenceText(model=str(bert_folder)))
    assert set(last_parameters(words, 1)) == below(words, "transformer.encoder.layer.1")


@pytest.mark.parametrize(
    ("model", "last"),
    [
        ("test_vit", ("blocks.5", "norm", "fc_norm")),
        ("test_efficientnet", ("blocks.4", "conv_head", "bn2")),
        ("test_resnet", ("layer4",)),
        ("test_convnext", ("stages.3", "head.norm")),
    ],
)
def test_timm(model: str, last: tuple[str, ...]) -> None:
    tower = timm(model)
    assert set(last_parameters(tower, 1)) == below(tower, *last) != set()


def test_side_paths_do_not_reach_around_the_boundary() -> None:
    tower = timm("test_efficientnet", stages=3)  # adds the maps of earlier stages to the vector
    assert set(last_parameters(tower, 1)) == set(last_parameters(timm("test_efficientnet"), 1))


def test_a_net_without_blocks() -> None:
    tower = timm("test_vit")
    assert tower.preprocess.size == 64
    tower._module = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64 * 64, 4), nn.ReLU(), nn.Linear(4, 4))
    assert set(last_parameters(tower, None)) == {"1.weight", "1.bias", "3.weight", "3.bias"}
    with pytest.raises(GenretError, match=r"'test_vit' is not made of blocks; set finetune\.last_layers to null"):
        last_parameters(tower, 1)


@pytest.mark.parametrize("model", ["regnetx_002", "densenet121"])
def test_nets_that_list_no_blocks(model: str) -> None:
    """Their stages are attributes side by side."""
    names = set(last_parameters(timm(model), 1))
    assert (
        names
        == {
            "regnetx_002": below(timm(model), "s4"),
            "densenet121": below(timm(model), "features.denseblock4", "features.norm5"),
        }[model]
    )


def test_a_net_whose_gradients_crash_torch_in_channels_last() -> None:
    """fastvit_t8 at its own size on the CPU, torch 2.15: the process would be gone."""
    tower = TimmImageTower(TimmImage(model="fastvit_t8", pretrained=False, bf16=False))
    strides = {name: parameter.stride() for name, parameter in tower.module.named_parameters()}
    assert last_parameters(tower, None) and tower._layout == torch.channels_last
    assert strides == {name: parameter.stride() for name, parameter in tower.module.named_parameters()}
