"""Other ways to run the default towers: `python -m bench.engines RUN PICTURES`.

EfficientNet-Lite0 over photographs (batches of 32 of 128 x 128 pixels) and MiniLM over captions (batches of 32), in
torch as genret runs them and otherwise: channels last or not, bfloat16 or not, batch norms folded into convolutions,
`torch.compile`, ONNX Runtime in float32 and in 8 bits (static for the convolutions, dynamic for the linear layers). The
cosine is that of vectors to those of float32 in torch. Engines take turns; the median of the process's own time
counts, because it hardly depends on what else the machine does. Needs `pip install onnxruntime onnx onnxscript`.
"""

from __future__ import annotations

import argparse
import copy
import json
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

import genret
from bench import machine, report
from bench.encoding import FILE, Cost, median
from bench.options import say
from bench.report import Row, Section
from genret.toolbox.folding import folded
from genret.toolbox.walk import walk_images

BATCH = 32
CALIBRATION = 128
Engine = Callable[[Any], Tensor]
"""A batch → its vectors (B, D)"""


class Whole(nn.Module):
    """An image tower's forward pass as one module, for exporters."""

    def __init__(self, tower: Any, module: nn.Module):
        super().__init__()
        self.module, self._stages = module, tower.config.stages

    def forward(self, pixels: Tensor) -> Tensor:
        module: Any = self.module
        if not self._stages:
            return module(pixels)  # type: ignore[no-any-return]
        final, maps = module.forward_intermediates(pixels, indices=self._stages)
        return torch.cat([module.forward_head(final, pre_logits=True), *(stage.mean((2, 3)) for stage in maps)], 1)


def image_engines(tower: Any, sample: Tensor, folder: Path, threads: int) -> Iterator[tuple[str, Engine]]:
    whole = Whole(tower, tower.module).eval()
    flat = copy.deepcopy(whole)
    folded(flat, sample[:2], flat, "the tower")
    last = torch.channels_last

    def torch_engine(module: nn.Module, half: bool, channels_last: bool = True) -> Engine:
        def run(pixels: Tensor) -> Tensor:
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=half):
                pixels = pixels.contiguous(memory_format=last if channels_last else torch.contiguous_format)
                return module(pixels).float()  # type: ignore[no-any-return]

        return run

    yield "torch, bfloat16, channels last (genret's)", torch_engine(whole, True)
    yield "torch, float32, channels last", torch_engine(whole, False)
    usual = copy.deepcopy(whole).to(memory_format=torch.contiguous_format)
    yield "torch, float32, channels first", torch_engine(usual, False, channels_last=False)
    yield "torch, float32, batch norms folded", torch_engine(flat, False)
    yield "torch, bfloat16, batch norms folded", torch_engine(flat, True)
    yield "torch.compile, bfloat16, batch norms folded", torch_engine(torch.compile(flat), True)
    exported = copy.deepcopy(whole).to(memory_format=torch.contiguous_format)
    file = export(exported, (sample[:2].contiguous(),), ["pixels"], folder / "image.onnx")
    yield "ONNX Runtime, float32", onnx_engine(file, threads)
    batches = [{"pixels": part.contiguous().numpy()} for part in sample[:CALIBRATION].split(BATCH)]
    yield "ONNX Runtime, 8 bits", onnx_engine(static_8_bits(file, batches), threads)


def text_engines(tower: Any, sample: dict[str, Tensor], folder: Path, threads: int) -> Iterator[tuple[str, Engine]]:
    model = tower.module["transformer"].eval()

    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
            states = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state.float()
            weights = attention_mask[..., None].float()
            return F.normalize((states * weights).sum(1) / weights.sum(1), dim=-1)

    pooled = Pooled().eval()

    def torch_engine(module: nn.Module, half: bool) -> Engine:
        def run(batch: dict[str, Tensor]) -> Tensor:
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=half):
                return module(**batch).float()  # type: ignore[no-any-return]

        return run

    yield "torch, bfloat16 (genret's)", torch_engine(pooled, True)
    yield "torch, float32", torch_engine(pooled, False)
    model.set_attn_implementation("eager")
    file = export(
        pooled, (sample["input_ids"][:2], sample["attention_mask"][:2]), list(sample), folder / "text.onnx", 1
    )
    model.set_attn_implementation("sdpa")
    yield "ONNX Runtime, float32", onnx_engine(file, threads)
    from onnxruntime.quantization import quantize_dynamic

    quantize_dynamic(file, folder / "text-8.onnx")
    yield "ONNX Runtime, 8 bits", onnx_engine(folder / "text-8.onnx", threads)


def export(module: nn.Module, example: tuple[Tensor, ...], names: list[str], file: Path, lengths: int = 0) -> Path:
    """`lengths`: the number of further axes, after the first, of any length."""
    axes = {name: {axis: f"axis{axis}" for axis in range(1 + lengths)} for name in names}
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module, example, str(file), input_names=names, output_names=["vectors"], dynamic_axes=axes, dynamo=False,
            opset_version=17,
        )  # fmt: skip
    return file


def onnx_engine(file: Path, threads: int) -> Engine:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    (first, *_) = session.get_inputs()

    def run(batch: Any) -> Tensor:
        given = batch if isinstance(batch, dict) else {first.name: batch}
        arrays = {name: np.ascontiguousarray(tensor.numpy()) for name, tensor in given.items()}
        return torch.from_numpy(session.run(None, arrays)[0])

    return run


def static_8_bits(file: Path, batches: list[dict[str, np.ndarray]]) -> Path:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._rest = iter(batches)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self._rest, None)

    prepared, target = file.with_suffix(".prepared.onnx"), file.with_suffix(".8.onnx")
    quant_pre_process(str(file), str(prepared), skip_symbolic_shape=True)
    quantize_static(str(prepared), str(target), Reader(), quant_format=QuantFormat.QDQ, per_channel=True)
    return target


def race(
    engines: dict[str, Engine], batches: list[Any], reference: Tensor, kind: str, rounds: int, threads: int
) -> list[Row]:
    cosine = {}
    for name, engine in engines.items():
        found = torch.cat([engine(batch) for batch in batches])
        cosine[name] = F.cosine_similarity(found, reference, dim=1)
    taken: dict[str, list[Cost]] = {name: [] for name in engines}
    for _ in range(rounds):
        for name, engine in engines.items():
            processor, start = time.process_time(), time.perf_counter()
            for batch in batches:
                engine(batch)
            taken[name].append(Cost(time.perf_counter() - start, time.process_time() - processor))
    usual = median(taken[next(iter(engines))])
    rows: list[Row] = []
    for name, costs in taken.items():
        cost = median(costs)
        rows.append({
            "pictures": kind, "threads": threads, "system": name,
            "ms": 1000 * cost.wall / len(reference), "times_as_fast": usual.wall / cost.wall,
            "processor_ms": 1000 * cost.processor / len(reference), "processor_times": usual.processor / cost.processor,
            "cosine": float(cosine[name].mean()), "least_cosine": float(cosine[name].min()),
        })  # fmt: skip
        say(f"  {rows[-1]}")
    return rows


def measure(run: Any, folder: Path, rounds: int, threads: int, scratch: Path, count: int) -> list[Row]:
    torch.set_num_threads(threads)
    encoder = run.retriever.encoder
    pictures = [Image.open(path).convert("RGB") for path in islice(walk_images([folder]), CALIBRATION + count)]
    pixels = encoder.image.inputs(encoder.image.preprocess.pixels(pictures))
    known, asked = pixels[:CALIBRATION], pixels[CALIBRATION:]
    engines = dict(image_engines(encoder.image, known, scratch, threads))
    batches: list[Any] = list(asked.split(BATCH))
    exact = engines["torch, float32, channels last"]
    rows = race(engines, batches, torch.cat([exact(batch) for batch in batches]), "EfficientNet-Lite0", rounds, threads)

    tower = encoder.text
    assert tower.module is not None
    captions = json.loads((folder.parent / "dataset_flickr8k.json").read_text(encoding="utf-8"))["images"]
    texts = [image["sentences"][0]["raw"] for image in captions[:count]]
    batches = []
    for start in range(0, len(texts), BATCH):
        batch = tower._tokenizer(texts[start : start + BATCH], padding=True, return_tensors="pt")
        batches.append({name: batch[name] for name in ("input_ids", "attention_mask")})
    engines = dict(text_engines(tower, batches[0], scratch, threads))
    exact = engines["torch, float32"]
    return rows + race(engines, batches, torch.cat([exact(batch) for batch in batches]), "MiniLM-L6", rounds, threads)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("pictures", type=Path, help="Flickr8k's folder of images, beside its dataset_flickr8k.json")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--count", type=int, default=256)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--out", type=Path, default=FILE)
    given = parser.parse_args()
    rows: list[Row] = []
    measured = machine.facts(torch.device("cpu"))
    with tempfile.TemporaryDirectory() as name, genret.load(given.run) as run:
        for threads in given.threads:
            rows += measure(run, given.pictures, given.rounds, threads, Path(name), given.count)
    times = ["ms", "times_as_fast", "processor_ms", "processor_times"]
    columns = ["pictures", "threads", "system", *times, "cosine", "least_cosine"]
    section = Section("Engines", columns, rows)
    report.save(given.out, "engines", report.as_json(section, measured, {"rounds": given.rounds, "count": given.count}))
    print(report.page({"engines": report.load(given.out)["engines"]}))


if __name__ == "__main__":
    main()
