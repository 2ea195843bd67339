"""Networks without transformers' model classes: the same numbers as theirs, and no import of them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertModel

from genret.errors import GenretError
from genret.toolbox.plain import WEIGHTS, Bert

SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bert")
    torch.manual_seed(0)
    model = BertModel(BertConfig(**SIZES, vocab_size=40, max_position_embeddings=32))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(path)
    return path


def opened(folder: Path, **other: object) -> Bert | None:
    config = BertConfig.from_pretrained(folder)
    for key, value in other.items():
        setattr(config, key, value)
    return Bert.opened(config, folder)


@pytest.mark.parametrize("lengths", [(7,), (7, 7), (9, 4, 1)])
@pytest.mark.parametrize("half", [False, True])
def test_bert_is_that_of_transformers_to_the_bit(folder, lengths, half):
    theirs, ours = BertModel.from_pretrained(folder).eval(), opened(folder)
    assert ours is not None and not ours.training
    ids = torch.randint(1, 40, (len(lengths), max(lengths)), generator=torch.Generator().manual_seed(1))
    mask = torch.tensor([[int(place < length) for place in range(max(lengths))] for length in lengths])
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=half):
        expected = theirs(input_ids=ids, attention_mask=mask).last_hidden_state
        found = ours(input_ids=ids, attention_mask=mask, token_type_ids=torch.zeros_like(ids)).last_hidden_state
    assert torch.equal(found, expected)


def test_what_is_written_transformers_reads(folder, tmp_path):
    ours = opened(folder)
    assert ours is not None
    ours.save_pretrained(tmp_path)
    theirs = BertModel.from_pretrained(tmp_path, add_pooling_layer=False).state_dict()
    before = BertModel.from_pretrained(folder, add_pooling_layer=False).state_dict()
    assert theirs.keys() == before.keys() and all(torch.equal(theirs[key], before[key]) for key in before)


@pytest.mark.parametrize(
    "other", [{"model_type": "roberta"}, {"hidden_act": "relu"}, {"is_decoder": True}, {"num_hidden_layers": 2}]
)
def test_another_network_is_left_to_transformers(folder, other):
    assert opened(folder, **other) is None


def test_weights_stored_otherwise_are_left_to_transformers(folder, tmp_path):
    config = BertConfig.from_pretrained(folder)
    assert Bert.opened(config, tmp_path) is None
    save_file({f"bert.{key}": value for key, value in load_file(folder / WEIGHTS).items()}, tmp_path / WEIGHTS)
    assert Bert.opened(config, tmp_path) is None


def test_weights_that_are_not_finite_are_named(folder, tmp_path):
    weights = load_file(folder / WEIGHTS)
    weights["embeddings.LayerNorm.weight"][3] = torch.nan
    save_file(weights, tmp_path / WEIGHTS)
    with pytest.raises(GenretError, match=r"embeddings\.LayerNorm\.weight holds values that are not finite"):
        Bert.opened(BertConfig.from_pretrained(folder), tmp_path)


def test_opening_a_generator_imports_no_model_class(folder, tmp_path):
    """It would double the time of a first search; neither does filling the networks import torch's compiler."""
    from genret.api import Vokens
    from genret.components.backbones.t5 import T5Backbone
    from genret.components.backbones.tokenizers import train_tokenizer

    train_tokenizer(["a red car"], 40).save_pretrained(folder)
    options = {"encoder": str(folder), "d_model": 16, "d_ff": 24, "num_layers": 0, "num_decoder_layers": 1}
    backbone = T5Backbone(T5Backbone.Config(**options, num_heads=2))
    backbone.build(Vokens((4, 4)), None, ["a red car"], seed=0)
    backbone.save(tmp_path)
    program = f"""
import json, sys
from pathlib import Path
from genret.api import Vokens
from genret.components.backbones.t5 import T5Backbone
backbone = T5Backbone(T5Backbone.Config(**{options!r}, num_heads=2))
backbone.load(Path({str(tmp_path)!r}), Vokens((4, 4)))
state = backbone.prefill(["a red car"])
logits = backbone.step(state, None, None, None)
heavy = [name for name in ("transformers.modeling_utils", "torch._dynamo", "torchvision") if name in sys.modules]
print(json.dumps([heavy, logits.flatten().tolist()]))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    heavy, logits = json.loads(done.stdout)
    assert heavy == []
    backbone.module.eval()
    expected = backbone.step(backbone.prefill(["a red car"]), None, None, None)
    torch.testing.assert_close(torch.tensor(logits), expected.flatten(), rtol=1e-3, atol=1e-3)
