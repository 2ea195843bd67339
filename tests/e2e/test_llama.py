"""One word changed: a decoder-only model writes the identifiers, trained whole or through adapters."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

LLAMA = "{type: llama, d_model: 16, d_ff: 16, num_layers: 1, num_heads: 2, vocab_size: 128}"


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    from genret.components.backbones.tokenizers import train_tokenizer

    folder = tmp_path_factory.mktemp("qwen3")
    tokenizer = train_tokenizer(["a red square on grey", "some orange ground with a cross, blue"], 128)
    size = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "head_dim": 8}
    torch.manual_seed(0)
    config = Qwen3Config(
        **size, num_key_value_heads=1, vocab_size=len(tokenizer), pad_token_id=0, bos_token_id=None, eos_token_id=1
    )
    Qwen3ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def check(tiny: Any, run: Path) -> None:
    found = tiny.genret("search", "a red square on grey", "--run", run, "-k", 50, "--json").document
    assert len(found["hits"]) == 8 and all(hit["score"] <= 0 for hit in found["hits"])
    evaluated = tiny.genret("evaluate", "--run", run, "--json").document
    ledger = {row["stage"]: row for row in evaluated["ledger"]}
    lost = sum(row["queries"] for row in evaluated["ledger"] if "lost" in row)
    assert ledger["dense"]["queries"] - lost == ledger["final"]["queries"]


def test_a_small_llama_reuses_all_that_came_before(tiny: Any, tmp_path: Path) -> None:
    run = tmp_path / "run"
    answer = tiny.genret("train", tiny.recipe, "--set", f"backbone={LLAMA}", "--run", run, "--json")
    assert answer.code == 0, answer.err
    for stage, state in {"encoder": "reused", "identifier": "reused", "targets": "reused", "generator": "done"}.items():
        assert f"\n{stage}: {state}" in "\n" + answer.err
    check(tiny, run)
    drawn = tiny.draw(tmp_path / "new.png", "red", "square", "grey")
    assert tiny.genret("index", "--run", run, drawn, "--json").document["added"] == 1
    hits = tiny.genret("search", "a red square on grey", "--run", run, "-k", 50, "--json").document["hits"]
    assert str(drawn) in {hit["image_id"] for hit in hits}


@pytest.mark.parametrize("form", ["merged", "adapter"])
def test_lora(tiny: Any, tmp_path: Path, pretrained: Path, form: str) -> None:
    backbone = f"backbone={{type: llama, model: {pretrained}, lora: {{r: 2}}, save: {form}}}"
    answer = tiny.genret("train", tiny.recipe, "--set", backbone, "--run", tmp_path / "run", "--json")
    assert answer.code == 0, answer.err
    files = {path.name for path in (tmp_path / "run" / "generator").iterdir()}
    assert {"merged": "model.safetensors", "adapter": "adapter_model.safetensors"}[form] in files
    assert not {"model.safetensors", "adapter_model.safetensors"} <= files
    check(tiny, tmp_path / "run")


def test_an_adapter_without_its_base_says_so(
    tiny: Any, tmp_path: Path, pretrained: Path, failed: Callable[..., None]
) -> None:
    base, run = tmp_path / "base", tmp_path / "run"
    shutil.copytree(pretrained, base)
    backbone = f"backbone={{type: llama, model: {base}, lora: {{r: 2}}, save: adapter}}"
    assert tiny.genret("train", tiny.recipe, "--set", backbone, "--run", run, "--set", "train.epochs=1").code == 0
    base.rename(tmp_path / "elsewhere")
    failed(tiny.genret("search", "a red square", "--run", run), 1, f"there is no model folder {base}")


def test_impossible_wishes_end_in_one_sentence(
    tiny: Any, tmp_path: Path, pretrained: Path, failed: Callable[..., None]
) -> None:
    def train(name: str, backbone: str) -> Any:
        return tiny.genret("train", tiny.recipe, "--set", f"backbone={backbone}", "--run", tmp_path / name, "--json")

    said = "lora adapts a pretrained model"
    failed(train("a", "{type: llama, lora: {r: 2}}"), 2, said)
    missing = train("b", f"{{type: llama, model: {pretrained}, lora: {{target_modules: [query_proj]}}}}")
    assert missing.code == 2 and missing.out == "" and "Traceback" not in missing.err
    assert "Qwen3ForCausalLM has no linear layer 'query_proj'" in missing.err and "q_proj" in missing.err
