"""Training on the device: a generator's steps in tokens per second, image towers in images per second, and memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from bench.gpu.options import measure, parser, peak_mb, reset_peak
from bench.identifiers import CODEBOOK_SIZE, NUM_LEVELS
from bench.measure import Rival, alternate
from bench.models import QUERIES, model
from bench.report import Row, Section, row
from genret.api import FitContext, LoopOptions, Silent
from genret.kit import loop
from genret.kit.device import autocast

LORA = {"lora": {"r": 16}}
GENERATORS: dict[str, tuple[str, dict[str, Any], int]] = {
    "T5-base, all weights": ("t5-base", {}, 256),
    "LLaMA-1B, LoRA": ("llama-1b", LORA, 64),
}
"""Name → shape, options of the backbone, batch size."""
TINY: dict[str, tuple[str, dict[str, Any], int]] = {
    "t5-tiny, all weights": ("t5-tiny", {}, 8),
    "llama-tiny, LoRA": ("llama-tiny", LORA, 8),
}
TOWERS = {"EfficientNet-Lite0": "tf_efficientnet_lite0", "ViT-B/32": "vit_base_patch32_224"}
STEPS = 10


def generators(device: torch.device, quick: bool) -> Section:
    """L_gen alone: captions of about 12 words, identifiers of 4 codes; forward, backward, clipping, AdamW."""
    rows = list(_generators(device, quick))
    return Section("Training a generator", ["system", "batch", "ms", "queries_per_s", "peak_mb", "note"], rows)


def _generators(device: torch.device, quick: bool) -> Iterator[Row]:
    for name, (shape, options, batch) in (TINY if quick else GENERATORS).items():
        reset_peak(device)
        training = Training(shape, options, batch, device)
        (timing,) = alternate([Rival(name, training)], device, 1 if quick else 5, 20, at_least=1)
        note = f"{training.num_tokens / timing.median:,.0f} tokens/s, {1000 * timing.median / STEPS:.1f} ms a step"
        found = row(timing, batch * STEPS, system=name, peak_mb=peak_mb(device), note=note)
        yield found | {"batch": batch} | {key: found[key] / STEPS for key in ("ms", "low", "high")}


class Training:
    """STEPS steps of genret's loop, each time it is called."""

    def __init__(self, shape: str, options: dict[str, Any], batch: int, device: torch.device):
        self.device, self.batch = device, batch
        self.net = model(shape, device, options=options, trains=True)
        firsts = torch.tensor([int(tokens[0]) for tokens in self.net.level_tokens], device=device)
        self.targets = torch.randint(CODEBOOK_SIZE, (batch * STEPS, NUM_LEVELS), device=device) + firsts
        self.texts = [QUERIES[i % len(QUERIES)] for i in range(batch * STEPS)]
        read = self.net.backbone.tokenizer(self.texts)["input_ids"]
        self.num_tokens = sum(map(len, read)) + self.targets.numel()

    def __call__(self, _: int) -> None:
        options = LoopOptions(epochs=1, batch_size=self.batch, lr=1e-4)
        with TemporaryDirectory() as folder:
            context = FitContext(0, self.device, Path(folder), Silent().progress, lambda row: None)
            loop.run(self.net.backbone.module, self.step, len(self.texts), options, context)

    def step(self, indices: Tensor, epoch: int, number: int) -> dict[str, Tensor]:
        wanted = self.targets[indices.to(self.device)]
        logits = self.net.backbone.logits([self.texts[i] for i in indices.tolist()], wanted)
        return {"loss": cross_entropy(logits.flatten(0, 1).float(), wanted.flatten())}


def image_towers(device: torch.device, quick: bool) -> Section:
    """Forward passes over pixels that lie on the device; reading and decoding images is not in it."""
    import timm

    rows = []
    batch = 1 if quick else 256
    pixels = torch.randn(batch, 3, 224, 224, device=device)
    for name, shape in TOWERS.items():
        reset_peak(device)
        tower: Any = timm.create_model(shape, pretrained=False, num_classes=0).eval().to(device)
        (timing,) = alternate([Rival(name, _forward(tower, pixels, device))], device, 1 if quick else 20, 5, at_least=1)
        found = row(timing, batch, system=name, peak_mb=peak_mb(device))
        rows.append(found | {"note": f"{batch / timing.median:,.0f} images/s"})
    return Section("Image towers", ["system", "batch", "ms", "peak_mb", "note"], rows)


def _forward(tower: Any, pixels: Tensor, device: torch.device) -> Callable[[int], Any]:
    @torch.inference_mode()
    def run(_: int) -> Any:
        with autocast(device, "auto"):
            return tower(pixels)

    return run


def main() -> None:
    arguments = parser(__doc__.split("\n")[0]).parse_args()
    device = torch.device(arguments.device)
    made = {"training": generators, "towers": image_towers}
    measure(arguments, {name: (lambda make=make: make(device, arguments.quick)) for name, make in made.items()})


if __name__ == "__main__":
    main()
