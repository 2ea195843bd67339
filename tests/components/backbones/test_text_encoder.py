"""The text encoder that reads for a T5: transformers' own states, remembered or not; the T5 on top of it against
transformers' own forward pass."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoTokenizer, CLIPConfig, CLIPModel

from genret.api import FitContext, Identifiers, LoopOptions, Silent, Vokens
from genret.components.backbones import text_encoder
from genret.components.backbones.t5 import T5Backbone
from genret.components.backbones.text_encoder import TextEncoder, TextEncoders
from genret.errors import GenretError
from genret.kit import loop

CAPTIONS = ["two dogs in the snow", "a red car", "a boy jumps into the water", "dogs play", "the snow falls on a car"]
QUERIES = ["a dog", *CAPTIONS[:2], "zebra in the red water"]
VOKENS = Vokens((7, 5, 6))
CPU = torch.device("cpu")
SMALL = {"d_model": 32, "d_ff": 48, "num_decoder_layers": 2, "num_heads": 4, "vocab_size": 100, "dropout": 0.0}


@pytest.fixture(autouse=True)
def full_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_encoder, "autocast", lambda device, bf16: torch.autocast("cpu", enabled=False))


def own_states(folder: Path, texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """transformers' own, each text by itself."""
    model, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        rows = [model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0] for text in texts]
    mask = [torch.ones(len(row), dtype=torch.bool) for row in rows]
    pad = torch.nn.utils.rnn.pad_sequence
    return pad(rows, batch_first=True), pad(mask, batch_first=True)


def built(folder: Path, vokens: Vokens = VOKENS, **options) -> T5Backbone:
    backbone = T5Backbone(T5Backbone.Config(**(SMALL | {"encoder": str(folder), "num_layers": 1} | options)))
    backbone.build(vokens, None, CAPTIONS, seed=0)
    backbone.module.eval()
    return backbone


def targets(backbone: T5Backbone, rows: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    codes = torch.stack([torch.randint(0, size, (rows,), generator=generator) for size in VOKENS.sizes], dim=1)
    return backbone.tokens(Identifiers(torch.arange(rows), codes=codes))


@pytest.mark.parametrize("trainable", [False, True])
def test_states_are_those_of_transformers(bert_folder, trainable):
    states, mask = TextEncoder(bert_folder, 64, trainable)(QUERIES, CPU)
    expected, real = own_states(bert_folder, QUERIES)
    assert torch.equal(mask, real) and states.requires_grad == trainable
    tolerance = 1e-5 if trainable else 2**-8  # bfloat16
    torch.testing.assert_close(states * mask[..., None], expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("room", [0, 300, 1 << 20])
def test_remembered_states_equal_fresh_ones(bert_folder, monkeypatch, room):
    monkeypatch.setattr(text_encoder, "MOST_BYTES", room)
    fresh, remembering = TextEncoder(bert_folder, 64), TextEncoder(bert_folder, 64)
    remembering.remember(CAPTIONS)
    for texts in (CAPTIONS, QUERIES, CAPTIONS[3:], ["a dog"]):
        one, two = fresh(texts, CPU), remembering(texts, CPU)
        assert torch.equal(one.mask, two.mask)
        torch.testing.assert_close(one.states, two.states, rtol=2**-7, atol=2**-7)
    memory = remembering._memory
    assert memory is not None and (room < 300 or memory.flat.numel() * 2 <= room)
    assert len(memory.place) == {0: 0, 300: 2, 1 << 20: 5}[room]


def test_remembered_texts_are_read_once(bert_folder, monkeypatch):
    encoder = TextEncoder(bert_folder, 64)
    encoder.remember(CAPTIONS)
    encoder(CAPTIONS[:1], CPU)
    monkeypatch.setattr(encoder, "model", None)
    monkeypatch.setattr(encoder, "_frozen", None)
    encoder.model = type("Gone", (), {"device": CPU})
    assert encoder(CAPTIONS, CPU).states.shape[0] == 5


def test_long_texts_are_cut(bert_folder):
    assert TextEncoder(bert_folder, 8)(["dog " * 500], CPU).states.shape[1] == 8


@pytest.mark.parametrize("num_layers", [0, 2])
def test_logits_and_steps_equal_transformers(bert_folder, num_layers):
    backbone = built(bert_folder, num_layers=num_layers)
    sequences = targets(backbone, len(QUERIES))
    states, mask = own_states(bert_folder, QUERIES)
    mapped = backbone.module["from_encoder"](states.bfloat16().float())
    inputs = torch.cat([torch.zeros_like(sequences[:, :1]), sequences[:, :-1]], dim=1)
    expected = backbone.t5(inputs_embeds=mapped, attention_mask=mask.long(), decoder_input_ids=inputs).logits
    close = {"rtol": 1e-2, "atol": 1e-2}  # a state may round to the next bfloat16
    torch.testing.assert_close(backbone.logits(QUERIES, sequences), expected, **close)
    state = backbone.prefill(QUERIES)
    parents = torch.zeros(len(QUERIES), 1, dtype=torch.int64)
    steps = [backbone.step(state, None, None, None)]
    steps += [backbone.step(state, sequences[:, [position]], parents, None) for position in range(2)]
    torch.testing.assert_close(torch.cat(steps, dim=1), expected, **close)


def trained(folder: Path, scratch: Path, **options) -> T5Backbone:
    backbone = built(folder, **options)
    tokens = targets(backbone, len(CAPTIONS))

    def step(indices: torch.Tensor, epoch: int, number: int) -> dict[str, torch.Tensor]:
        logits = backbone.logits([CAPTIONS[row] for row in indices.tolist()], tokens[indices])
        return {"loss": torch.nn.functional.cross_entropy(logits.transpose(1, 2), tokens[indices])}

    context = FitContext(0, CPU, scratch, Silent().progress, lambda row: None)
    options = LoopOptions(epochs=10, batch_size=5, lr=3e-3, bf16=False)
    loop.run(backbone.module, step, len(CAPTIONS), options, context)
    return backbone


def test_training_leaves_a_frozen_encoder_alone(bert_folder, tmp_path):
    backbone = trained(bert_folder, tmp_path)
    untouched = built(bert_folder).module["from_encoder"]
    assert not torch.equal(untouched[0].weight, backbone.module["from_encoder"][0].weight)
    before = AutoModel.from_pretrained(bert_folder).state_dict()
    (part,) = backbone._encoder.parts
    after = part.model.state_dict()
    assert {key for key in before if not key.startswith("pooler.")} == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in after)
    assert not part.model.training
    assert not any(key.startswith("encoder.") for key in backbone.module.state_dict())


def test_training_moves_an_encoder_that_is_trained_along(bert_folder, tmp_path):
    backbone = trained(bert_folder, tmp_path, train_encoder=True)
    before, after = AutoModel.from_pretrained(bert_folder), backbone._encoder.parts[0].model
    assert not torch.equal(before.embeddings.word_embeddings.weight, after.embeddings.word_embeddings.weight)
    backbone.save(tmp_path / "saved")
    again = T5Backbone(backbone.config)
    again.load(tmp_path / "saved", VOKENS)
    tokens = targets(backbone, len(QUERIES))
    torch.testing.assert_close(again.logits(QUERIES, tokens), backbone.logits(QUERIES, tokens))


def test_a_saved_run_needs_no_other_folder(bert_folder, tmp_path):
    backbone = built(bert_folder)
    backbone.save(tmp_path / "saved")
    again = T5Backbone(backbone.config.model_copy(update={"encoder": "no/longer/there"}))
    again.load(tmp_path / "saved", VOKENS)
    tokens = targets(backbone, len(QUERIES))
    torch.testing.assert_close(again.logits(QUERIES, tokens), backbone.logits(QUERIES, tokens), rtol=1e-2, atol=1e-2)
    assert not list((tmp_path / "saved").rglob("*.bin"))
    (tmp_path / "saved" / "encoder" / "model.safetensors").unlink()
    with pytest.raises(GenretError, match="no usable generator"):
        again.load(tmp_path / "saved", VOKENS)


@pytest.fixture(scope="module")
def wider_folder(bert_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another model, wider and with states of another size, that reads by the same word pieces."""
    folder: Path = tmp_path_factory.mktemp("wider")
    config = AutoConfig.from_pretrained(bert_folder)
    config.hidden_size *= 2
    torch.manual_seed(5)
    model = AutoModel.from_config(config).eval()
    with torch.no_grad():
        model.encoder.layer[-1].output.LayerNorm.weight.mul_(0.1)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(bert_folder).save_pretrained(folder)
    return folder


@torch.no_grad()
def test_several_read_side_by_side(bert_folder, wider_folder):
    both = TextEncoders([bert_folder, wider_folder], 64)
    both.remember(CAPTIONS)
    states, mask = both(QUERIES, CPU)
    (one, real), (two, _) = own_states(bert_folder, QUERIES), own_states(wider_folder, QUERIES)
    width, pieces = one.shape[2], one.shape[1]
    assert both.width == 3 * width and states.shape == (len(QUERIES), 2 * pieces, 3 * width)
    assert torch.equal(mask, torch.cat([real, real], dim=1))
    for own, here in ((one, states[:, :pieces, :width]), (two, states[:, pieces:, width:])):
        close = {"rtol": 2**-5, "atol": 2**-5}
        expected = (own - own.mean(-1, keepdim=True)) / own.std(-1, keepdim=True, correction=0)
        torch.testing.assert_close(here, (expected * real[:, :, None]).nan_to_num(), **close)
    assert not states[:, :pieces, width:].any() and not states[:, pieces:, :width].any()
    projection = torch.nn.Linear(3 * width, 8)
    weight, bias = projection.weight, projection.bias
    apart = [states[:, :pieces, :width] @ weight[:, :width].T, states[:, pieces:, width:] @ weight[:, width:].T]
    torch.testing.assert_close(projection(states), torch.cat(apart, dim=1) + bias)


def test_several_are_saved_and_found_again(bert_folder, wider_folder, tmp_path):
    backbone = built(bert_folder, encoder=[str(bert_folder), str(wider_folder)])
    backbone.save(tmp_path)
    assert TextEncoders.saved(tmp_path) == [tmp_path / "encoder", tmp_path / "encoder-2"]
    again = T5Backbone(T5Backbone.Config(**SMALL, encoder=["gone", "gone, too"], num_layers=1))
    again.load(tmp_path, VOKENS)
    tokens = targets(backbone, len(QUERIES))
    torch.testing.assert_close(again.logits(QUERIES, tokens), backbone.logits(QUERIES, tokens), rtol=1e-2, atol=1e-2)
    assert again.reads("dog") and not again.reads("犬")


def test_only_texts_need_words(bert_folder):
    codes = built(bert_folder)
    assert codes.vocab_size == 3 + VOKENS.num_symbols
    texts = built(bert_folder, vokens=Vokens())
    assert texts.vocab_size > 20
    row = texts.tokens(Identifiers(torch.arange(1), texts=["red car"]))[0]
    assert texts.tokenizer.decode(row) == "red car"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"model": "some/t5"}, "set it or `model` to null"),
        ({"encoder": []}, "`encoder` names nothing"),
        ({"encoder": None, "train_encoder": True}, "no `encoder` to train"),
        ({"encoder": None, "num_layers": 0}, "nothing reads the query"),
    ],
)
def test_contradictions_are_refused_in_words(bert_folder, options, words):
    with pytest.raises(ValueError, match=words):
        built(bert_folder, **options)


def test_folders_that_hold_no_text_encoder_are_refused(tmp_path):
    with pytest.raises(GenretError, match="no model folder"):
        built(tmp_path / "missing")
    tiny = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    clip = CLIPModel(CLIPConfig(text_config=tiny, vision_config=tiny | {"image_size": 32, "patch_size": 16}))
    clip.save_pretrained(tmp_path / "clip")
    (tmp_path / "clip" / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    with pytest.raises(GenretError, match="text encoder"):
        built(tmp_path / "clip")
