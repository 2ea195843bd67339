"""The options of LlamaBackbone: a model built here, low-rank adapters and the rows beside them, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from pydantic import ValidationError
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, GraniteConfig, GraniteForCausalLM, LlamaConfig, LlamaForCausalLM

from genret.api import FitContext, Identifiers, LoopOptions, Silent, Vokens
from genret.components.backbones.llama import LlamaBackbone
from genret.components.backbones.presets import T5XL, Llama7BLora, T5Base, T5Large
from genret.components.backbones.tokenizers import train_tokenizer
from genret.errors import GenretError, UsageError
from genret.kit import checkpoint, loop

torch.set_num_threads(1)

CAPTIONS = ["two dogs in the snow", "a red car", "a boy jumps into the water", "dogs play", "the snow falls on a car"]
VOKENS = Vokens((7, 5, 6))
SMALL = {"d_model": 32, "d_ff": 48, "num_layers": 2, "num_heads": 4, "vocab_size": 100}
SIZES: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 80,
    "pad_token_id": 0, "bos_token_id": None, "eos_token_id": 1,
}  # fmt: skip


def built(vokens: Vokens = VOKENS, code_vectors: torch.Tensor | None = None, **options: Any) -> LlamaBackbone:
    sizes = {} if "model" in options else SMALL
    backbone = LlamaBackbone(LlamaBackbone.Config(**(sizes | options)))
    backbone.build(vokens, code_vectors, CAPTIONS, seed=0)
    backbone.module.eval()
    return backbone


@pytest.fixture(scope="module", params=["tied", "untied"])
def folder(request, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    torch.manual_seed(1)
    LlamaForCausalLM(LlamaConfig(**SIZES, tie_word_embeddings=request.param == "tied")).save_pretrained(folder)
    train_tokenizer(CAPTIONS, 80).save_pretrained(folder)
    return folder


TARGETS = torch.tensor([[0, 1, 2], [3, 4, 5], [6, 0, 1], [0, 1, 1], [2, 2, 2]])


def fit(backbone: LlamaBackbone, where: Path, epochs: int = 6, kill_at: int = -1) -> loop.LoopResult:
    """Teaches the captions' codes through the loop that trains generators."""
    targets = backbone.tokens(Identifiers(torch.arange(5), codes=TARGETS))
    steps = []

    def step(indices: torch.Tensor, epoch: int, number: int) -> dict[str, torch.Tensor]:
        if len(steps) == kill_at:
            raise KeyboardInterrupt
        steps.append(epoch)
        logits = backbone.logits([CAPTIONS[i] for i in indices.tolist()], targets[indices])
        return {"loss": torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets[indices].flatten())}

    options = LoopOptions(epochs=epochs, batch_size=2, lr=1e-2, bf16=False)
    return loop.run(
        backbone.module,
        step,
        5,
        options,
        FitContext(0, torch.device("cpu"), where, Silent().progress, lambda row: None),
    )


# ------------------------------------------------------------------------------------------------ adapters
def test_only_adapters_and_new_rows_are_trained(folder, tmp_path):
    backbone = built(model=str(folder), lora={"r": 2, "target_modules": ["q_proj", "down_proj"]})
    raw = AutoModelForCausalLM.from_pretrained(folder).state_dict()
    trained = sum(p.numel() for p in backbone.module.parameters() if p.requires_grad)
    tables = 1 if backbone._model.config.tie_word_embeddings else 2
    assert trained == 2 * 2 * ((32 + 32) + (48 + 32)) + tables * VOKENS.num_symbols * 32
    before = backbone.logits(CAPTIONS, torch.full((5, 3), 82)).detach()
    assert fit(backbone, tmp_path, epochs=20).loss < 0.7 * torch.tensor(98.0).log()
    after = backbone.logits(CAPTIONS, torch.full((5, 3), 82)).detach()
    assert not torch.allclose(before, after, atol=1e-2)
    state = backbone._model.state_dict()
    for name, value in raw.items():  # peft renames what it wraps
        kept = next(
            state[wrapped]
            for wrapped in (
                name,
                name.replace(".weight", ".base_layer.weight"),
                name.replace(".weight", ".token_adapter.base_layer.weight"),
            )
            if wrapped in state
        )
        assert torch.equal(kept[: len(value)], value), name


def test_a_killed_training_resumes_to_the_same_bits_from_a_small_checkpoint(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "SECONDS", 0.0)
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: 0.0)
    options: dict[str, Any] = {"model": str(folder), "lora": {"r": 2, "dropout": 0.3}}
    straight = built(**options)
    expected = fit(straight, tmp_path / "straight")
    with pytest.raises(KeyboardInterrupt):
        fit(built(**options), tmp_path / "stopped", kill_at=7)
    stored = load_file(tmp_path / "stopped" / "train" / "tensors.safetensors")
    weights = [name for name in stored if name.startswith("module.")]
    assert weights and all("lora_" in name or "trainable_tokens" in name for name in weights)
    resumed = built(**options)
    assert fit(resumed, tmp_path / "stopped") == expected
    for key, value in straight.module.state_dict().items():
        assert torch.equal(value, resumed.module.state_dict()[key]), key


@pytest.mark.filterwarnings("ignore:.*checkpointing:FutureWarning")  # peft calls what transformers renamed
def test_peft_itself_reads_the_adapter(folder, tmp_path):
    backbone = built(model=str(folder), lora={"r": 2}, save="adapter")
    fit(backbone, tmp_path / "checkpoints")
    (tmp_path / "saved").mkdir()
    backbone.save(tmp_path / "saved")
    base = AutoModelForCausalLM.from_pretrained(folder)
    base.resize_token_embeddings(backbone.vocab_size, mean_resizing=False)
    theirs = PeftModel.from_pretrained(base, tmp_path / "saved")
    prompt = torch.tensor([[5, 9, 82, 88]])
    torch.testing.assert_close(theirs(prompt).logits, backbone.module(prompt).logits, atol=1e-5, rtol=1e-5)
    size = (tmp_path / "saved" / "adapter_model.safetensors").stat().st_size
    assert size < (folder / "model.safetensors").stat().st_size


def test_an_adapter_needs_the_weights_that_it_was_trained_with(folder, tmp_path):
    backbone = built(model=str(folder), lora={"r": 2}, save="adapter")
    backbone.save(tmp_path)
    facts = json.loads((tmp_path / "genret.json").read_text())
    assert facts["base"]["model"] == str(folder)
    (tmp_path / "genret.json").write_text(json.dumps(facts | {"base": facts["base"] | {"fingerprint": "another"}}))
    with pytest.raises(GenretError, match="other weights"):
        LlamaBackbone(backbone.config).load(tmp_path, VOKENS)
    (tmp_path / "genret.json").write_text(json.dumps(facts | {"base": facts["base"] | {"model": "/no/such/model"}}))
    with pytest.raises(GenretError, match="/no/such/model"):
        LlamaBackbone(backbone.config).load(tmp_path, VOKENS)
    (tmp_path / "genret.json").write_text(json.dumps(facts))
    other = LlamaBackbone(LlamaBackbone.Config(model=str(folder), lora={"r": 3}, save="adapter"))
    with pytest.raises(GenretError, match="other adapters"):
        other.load(tmp_path, VOKENS)


def test_bfloat16_keeps_what_is_trained_in_full_precision(folder, tmp_path):
    backbone = built(model=str(folder), lora={"r": 2}, dtype="bfloat16", save="adapter")
    kinds = {p.requires_grad: p.dtype for p in backbone.module.parameters()}
    assert kinds == {True: torch.float32, False: torch.bfloat16}
    assert fit(backbone, tmp_path / "checkpoints", epochs=3).loss < torch.tensor(98.0).log()
    (tmp_path / "saved").mkdir()
    backbone.save(tmp_path / "saved")
    again = LlamaBackbone(backbone.config)
    again.load(tmp_path / "saved", VOKENS)
    targets = again.tokens(Identifiers(torch.arange(5), codes=TARGETS))
    assert torch.equal(again.logits(CAPTIONS, targets), backbone.logits(CAPTIONS, targets))


def test_gradient_checkpointing_changes_no_gradient(folder):
    grads = []
    for kept in (False, True):
        backbone = built(model=str(folder), lora={"r": 2, "dropout": 0.0}, gradient_checkpointing=kept)
        backbone.module.train()
        targets = backbone.tokens(Identifiers(torch.arange(5), codes=TARGETS))
        backbone.score(CAPTIONS, targets[:, None], [None] * 3).sum().backward()
        grads.append({name: p.grad for name, p in backbone.module.named_parameters() if p.requires_grad})
    for name, grad in grads[0].items():
        torch.testing.assert_close(grads[1][name], grad)


def test_identifiers_of_the_models_own_words_need_no_rows(folder):
    backbone = built(Vokens(), model=str(folder), lora={"r": 2})
    assert backbone.vocab_size == 80 and backbone.level_tokens(0) is None
    rows = backbone.tokens(Identifiers(torch.arange(2), texts=["red car", "dogs"]))
    assert backbone.tokenizer.decode([t for t in rows[0].tolist() if t >= 0]).strip() == "red car"


# ------------------------------------------------------------------------------------------------ a model built here
def test_a_small_llama_learns_and_is_the_same_every_time(tmp_path):
    one, two = built(), built()
    assert one.tokenizer.get_vocab() == two.tokenizer.get_vocab()
    for key, value in one.module.state_dict().items():
        assert torch.equal(value, two.module.state_dict()[key])
    fit(one, tmp_path, epochs=40)
    targets = one.tokens(Identifiers(torch.arange(5), codes=TARGETS))
    assert one.logits(CAPTIONS, targets).argmax(-1).equal(targets)


@pytest.mark.parametrize("width", [32, 12, 48])
def test_code_vectors_are_copied_into_embedding_and_head(folder, width):
    vectors = torch.randn(VOKENS.num_symbols, width, generator=torch.Generator().manual_seed(5))
    model = built(code_vectors=vectors, model=str(folder)).module
    cosine = torch.nn.functional.cosine_similarity
    for table in (model.get_input_embeddings().weight.detach(), model.get_output_embeddings().weight.detach()):
        rows, old = table[-VOKENS.num_symbols :], table[: -VOKENS.num_symbols]
        if width <= 32:  # angles survive equal or greater width exactly
            torch.testing.assert_close(
                cosine(rows[:1], rows[:7]), cosine(vectors[:1], vectors[:7]), atol=1e-4, rtol=1e-4
            )
        torch.testing.assert_close(rows[:7].square().mean(), old.square().mean(), rtol=1e-3, atol=1e-3)


def test_long_queries_are_cut_but_the_prompt_stays_whole():
    backbone = built(max_query_tokens=4, prompt="find {query} =>")
    ids, mask = backbone._prompts(["a red car " * 50, "a"])
    start, end = (backbone.tokenizer(words)["input_ids"][:-1] for words in ("find", "=>"))
    assert ids.shape[1] <= len(start) + 4 + len(end) + 1
    for row in range(2):
        real = ids[row][mask[row]].tolist()
        assert real[: len(start)] == start and real[-len(end) :] == end
    assert backbone.end_token not in ids[0].tolist()


# ------------------------------------------------------------------------------------------------ refusals
def test_impossible_wishes_are_refused_in_words(folder, tmp_path):
    with pytest.raises(UsageError, match="copy_code_vectors"):
        built(copy_code_vectors=True)
    with pytest.raises(UsageError, match="no linear layer 'query'; it has q_proj, k_proj"):
        built(model=str(folder), lora={"target_modules": ["query"]})
    with pytest.raises(UsageError, match="did you mean 'q_proj'"):
        built(model=str(folder), lora={"target_modules": ["q_prj"]})
    with pytest.raises(GenretError, match="no/such/folder"):
        built(model="./no/such/folder")
    for options, said in [
        ({"lora": {}}, "pretrained"),
        ({"dtype": "bfloat16", "model": "x"}, "too coarse"),
        ({"prompt": "find"}, "{query}"),
        ({"d_model": 36, "num_heads": 4}, "twice num_heads"),
    ]:
        with pytest.raises(ValidationError, match=said):
            LlamaBackbone.Config(**options)


def test_an_architecture_that_computes_otherwise_is_refused(tmp_path):
    GraniteForCausalLM(GraniteConfig(**SIZES, logits_scaling=8.0)).save_pretrained(tmp_path)
    train_tokenizer(CAPTIONS, 80).save_pretrained(tmp_path)
    with pytest.raises(GenretError, match="GraniteForCausalLM does not fit"):
        built(model=str(tmp_path))


def test_a_model_without_safetensors_is_refused(folder, tmp_path):
    for path in folder.glob("*.json"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(GenretError, match="safetensors"):
        built(model=str(tmp_path))


def test_presets_are_those_of_table_6():
    assert [preset.Config().model for preset in (T5Base, T5Large, T5XL)] == [
        "google-t5/t5-base", "google-t5/t5-large", "google-t5/t5-3b",
    ]  # fmt: skip
    llama = Llama7BLora.Config()
    assert llama.model == "huggyllama/llama-7b" and llama.lora is not None and llama.save == "adapter"
