"""T5Backbone held against transformers' own forward pass and tokenizers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import T5ForConditionalGeneration

from genret.api import Identifiers, Vokens
from genret.components.backbones.t5 import T5Backbone
from genret.errors import GenretError, UsageError

CAPTIONS = ["two dogs in the snow", "a red car", "a boy jumps into the water", "dogs play", "the snow falls on a car"]
VOKENS = Vokens((7, 5, 6))
SMALL = {"d_model": 32, "d_ff": 48, "num_layers": 2, "num_heads": 4, "vocab_size": 100}


def built(vokens: Vokens = VOKENS, code_vectors: torch.Tensor | None = None, **options) -> T5Backbone:
    backbone = T5Backbone(T5Backbone.Config(**(SMALL | options)))
    backbone.build(vokens, code_vectors, CAPTIONS, seed=0)
    backbone.module.eval()
    return backbone


@pytest.fixture(params=["tied", "untied"])
def backbone(request, tmp_path: Path) -> T5Backbone:
    """A small T5, and one as T5 v1.1 and flan-T5 are: untied head, unscaled outputs, loaded from a folder."""
    first = built()
    if request.param == "tied":
        return first
    config = first.t5.config
    folder = tmp_path / "pretrained"
    torch.manual_seed(1)
    model = T5ForConditionalGeneration(config)
    model.config.scale_decoder_outputs = False
    model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.shared.weight))
    model.save_pretrained(folder)
    saved = json.loads((folder / "config.json").read_text()) | {"tie_word_embeddings": False}
    saved.pop("scale_decoder_outputs", None)
    (folder / "config.json").write_text(json.dumps(saved))
    first.tokenizer.save_pretrained(folder)
    return built(model=str(folder))


def reference_logits(backbone: T5Backbone, queries: list[str], targets: torch.Tensor) -> torch.Tensor:
    """transformers' own teacher forcing."""
    batch = backbone.tokenizer(queries, padding=True, return_tensors="pt")
    labels = targets.masked_fill(targets < 0, 0)
    start = torch.zeros_like(labels[:, :1])
    inputs = torch.cat([start, labels[:, :-1]], dim=1)
    return backbone.t5(
        input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], decoder_input_ids=inputs
    ).logits


def codes_for(backbone: T5Backbone, rows: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    codes = torch.stack([torch.randint(0, size, (rows,), generator=generator) for size in VOKENS.sizes], dim=1)
    return backbone.tokens(Identifiers(torch.arange(rows), codes=codes))


def test_logits_equal_transformers(backbone):
    queries = CAPTIONS[:3]
    targets = codes_for(backbone, 3)
    torch.testing.assert_close(backbone.logits(queries, targets), reference_logits(backbone, queries, targets))


def test_score_equals_transformers_log_probabilities(backbone):
    queries = CAPTIONS[:2]
    sequences = codes_for(backbone, 6).view(2, 3, 3)
    sequences[0, 1, 2] = -1
    levels = [backbone.level_tokens(level) for level in range(3)]
    scores = backbone.score(queries, sequences, levels)
    for beam in range(3):
        logits = reference_logits(backbone, queries, sequences[:, beam])
        for level, columns in enumerate(levels):
            log_probs = logits[:, level, columns].log_softmax(-1)
            wanted = log_probs.gather(1, (sequences[:, beam, level] - columns[0]).clamp_min(0)[:, None])[:, 0]
            wanted = wanted.masked_fill(sequences[:, beam, level] < 0, 0.0)
            torch.testing.assert_close(scores[:, beam, level], wanted)
    whole = backbone.score(queries, sequences, [None] * 3)
    expected = reference_logits(backbone, queries, sequences[:, 0]).log_softmax(-1)
    torch.testing.assert_close(whole[1, 0], expected[1].gather(1, sequences[1, 0][:, None])[:, 0])


def test_steps_with_reordered_beams_equal_teacher_forcing(backbone):
    queries = CAPTIONS[:2]
    sequences = codes_for(backbone, 6).view(2, 3, 3)
    state = backbone.prefill(queries)
    first = backbone.step(state, None, None, None)
    assert first.shape == (2, 1, backbone.vocab_size)
    parents = torch.zeros(2, 3, dtype=torch.long)
    second = backbone.step(state, sequences[:, :, 0], parents, None)
    swap = torch.tensor([[2, 0, 0], [1, 1, 2]])
    columns = backbone.level_tokens(2)
    third = backbone.step(state, sequences[:, :, 1], swap, columns)
    rows = torch.arange(2)[:, None]
    for beam in range(3):
        history = torch.stack(
            [sequences[:, :, 0][rows, swap][:, beam], sequences[:, beam, 1], sequences[:, beam, 2]], 1
        )
        expected = reference_logits(backbone, queries, history)
        torch.testing.assert_close(third[:, beam], expected[:, 2, columns])
        direct = reference_logits(backbone, queries, sequences[:, beam])
        torch.testing.assert_close(second[:, beam], direct[:, 1])
        torch.testing.assert_close(first[:, 0], direct[:, 0])


def test_many_steps_equal_teacher_forcing(backbone):
    """The cache grows, and so does what is known of the position bias."""
    generator = torch.Generator().manual_seed(1)
    beams = torch.randint(3, 90, (2, 3, 1), generator=generator)
    parents = torch.zeros(2, 3, dtype=torch.int64)
    state = backbone.prefill(CAPTIONS[:2])
    backbone.step(state, None, None, None)
    for _ in range(40):
        logits = backbone.step(state, beams[:, :, -1], parents, None)
        parents = torch.randint(0, 3, (2, 3), generator=generator)
        follows = torch.randint(3, 90, (2, 3, 1), generator=generator)
        earlier, beams = beams, torch.cat([beams[torch.arange(2)[:, None], parents], follows], dim=2)
    for beam in range(3):  # one token more, of which nothing is read
        targets = torch.cat([earlier[:, beam], earlier[:, beam, :1]], dim=1)
        torch.testing.assert_close(logits[:, beam], reference_logits(backbone, CAPTIONS[:2], targets)[:, -1])


def test_mixed_precision_is_near(backbone, bert_folder):
    """Training and its searches run under autocast, also where another model's states are read."""
    reading = T5Backbone(T5Backbone.Config(**(SMALL | {"encoder": str(bert_folder)})))
    reading.build(VOKENS, None, CAPTIONS, seed=0)
    reading.module.eval()
    for one in (backbone, reading):
        targets = codes_for(one, 3)
        exact = one.logits(CAPTIONS[:3], targets)
        with torch.autocast("cpu", torch.bfloat16):
            near = one.logits(CAPTIONS[:3], targets)
            with torch.no_grad():
                state = one.prefill(CAPTIONS[:3])
                stepped = [one.step(state, None, None, None)[:, 0]]
                for position in (0, 1):
                    stepped.append(one.step(state, targets[:, position, None], None, None)[:, 0])
        near.float().sum().backward()
        for logits in (near, torch.stack(stepped, 1)):
            assert (logits.float() - exact).abs().max() < 0.05 * exact.abs().max()


def test_a_padded_batch_equals_queries_one_by_one(backbone):
    queries = ["dogs", " ".join(CAPTIONS), "a red car"]
    sequences = codes_for(backbone, 6).view(1, 6, 3).expand(3, -1, -1)
    parents = torch.zeros(3, 6, dtype=torch.int64)
    together, alone = backbone.prefill(queries), [backbone.prefill([query]) for query in queries]
    for position in range(3):
        written = (None, None) if position == 0 else (sequences[:, :, position - 1], parents)
        logits = backbone.step(together, *written, None)
        own = [backbone.step(s, *(w if w is None else w[:1] for w in written), None) for s in alone]
        torch.testing.assert_close(logits, torch.cat(own))
        parents = parents + torch.arange(6)[None] if position else parents
    scores = backbone.score(queries, sequences, [None] * 3)
    torch.testing.assert_close(scores, torch.cat([backbone.score([q], sequences[:1], [None] * 3) for q in queries]))


def test_save_and_load_keep_logits_and_ties(backbone, tmp_path):
    backbone.save(tmp_path / "saved")
    again = T5Backbone(backbone.config)
    again.load(tmp_path / "saved", VOKENS)
    targets = codes_for(backbone, 3)
    torch.testing.assert_close(again.logits(CAPTIONS[:3], targets), backbone.logits(CAPTIONS[:3], targets))
    tied = [b.t5.lm_head.weight.data_ptr() == b.t5.shared.weight.data_ptr() for b in (backbone, again)]
    assert tied[0] == tied[1]
    assert not list((tmp_path / "saved").glob("*.bin"))


def test_growing_keeps_the_pretrained_rows(backbone):
    if backbone.config.model is None:
        pytest.skip("built here, nothing pretrained")
    raw = T5ForConditionalGeneration.from_pretrained(backbone.config.model)
    first = raw.shared.num_embeddings
    assert backbone.vocab_size == first + VOKENS.num_symbols
    torch.testing.assert_close(backbone.t5.shared.weight[:first], raw.shared.weight)
    torch.testing.assert_close(backbone.t5.lm_head.weight[:first], raw.lm_head.weight)
    assert not torch.equal(backbone.t5.lm_head.weight[:first], backbone.t5.shared.weight[:first])


@pytest.mark.parametrize("width", [32, 12, 48])
def test_code_vectors_are_copied_up_to_scale_and_rotation(width):
    vectors = torch.randn(VOKENS.num_symbols, width, generator=torch.Generator().manual_seed(5))
    backbone = built(code_vectors=vectors)
    rows = backbone.t5.shared.weight[-VOKENS.num_symbols :].detach()
    level = slice(0, VOKENS.sizes[0])
    if width <= 32:  # angles survive equal or greater width exactly
        cosine = torch.nn.functional.cosine_similarity
        torch.testing.assert_close(
            cosine(rows[level][:1], rows[level]), cosine(vectors[level][:1], vectors[level]), atol=1e-4, rtol=1e-4
        )
    old = backbone.t5.shared.weight[: -VOKENS.num_symbols].detach()
    torch.testing.assert_close(rows[level].square().mean(), old.square().mean(), rtol=1e-3, atol=1e-3)
    plain = built(code_vectors=vectors, copy_code_vectors=False).t5.shared.weight[-VOKENS.num_symbols :]
    assert not torch.allclose(rows, plain)


def test_impossible_wishes_are_refused_in_words():
    with pytest.raises(UsageError, match="copy_code_vectors"):
        built(copy_code_vectors=True)
    with pytest.raises(ValueError, match="multiple of"):
        built(d_model=30)
    with pytest.raises(GenretError, match="no model folder"):
        built(model="./no/such/folder")


def test_shared_codebook_uses_the_same_rows_at_every_level():
    backbone = built(Vokens((6, 6), shared=True))
    assert torch.equal(backbone.level_tokens(0), backbone.level_tokens(1))
    tokens = backbone.tokens(Identifiers(torch.arange(1), codes=torch.tensor([[4, 4]])))
    assert tokens[0, 0] == tokens[0, 1]


def test_the_trained_tokenizer_is_the_same_every_time_and_reads_unknown_words():
    one, two = built(), built()
    assert one.tokenizer.get_vocab() == two.tokenizer.get_vocab()
    assert one.tokenizer("Two dogs")["input_ids"][-1] == one.end_token
    assert one.prefill(["雪 zebra quux " * 4000]).query_mask.shape[-1] <= one.config.max_query_tokens


# ------------------------------------------------------------------------------------------------ image vectors
WIDTH = 6


@pytest.fixture
def looking(backbone) -> T5Backbone:
    """A backbone that reads image vectors, small or pretrained."""
    again = T5Backbone(backbone.config)
    again.build(VOKENS, None, CAPTIONS, seed=0, feature_width=WIDTH)
    again.module.eval()
    return again


def vectors(rows: int) -> torch.Tensor:
    torch.manual_seed(4)
    return torch.nn.functional.normalize(torch.randn(rows, WIDTH), dim=-1)


def seen_logits(backbone: T5Backbone, features: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
    """transformers' own forward, the mapped vector as the encoder's only position."""
    linear, norm = backbone.module["from_image"]
    mapped = norm(features @ linear.weight.T + linear.bias)[:, None]
    return backbone.t5(inputs_embeds=mapped, decoder_input_ids=inputs).logits


def test_feature_logits_equal_transformers(looking):
    targets = codes_for(looking, 3)
    inputs = torch.cat([torch.zeros_like(targets[:, :1]), targets[:, :-1]], dim=1)
    logits = looking.feature_logits(vectors(3), targets)
    torch.testing.assert_close(logits, seen_logits(looking, vectors(3), inputs))
    logits.sum().backward()
    assert looking.module["from_image"][0].weight.grad.abs().sum() > 0


def test_caption_log_probs_equal_transformers_sum_over_the_words_and_the_end(looking):
    captions = [CAPTIONS[1], CAPTIONS[2], "red " * 200, "zebra </s>"]
    found = looking.caption_log_probs(vectors(4), captions)
    assert found.requires_grad
    plain = {"add_special_tokens": False, "split_special_tokens": True}
    for row, caption in enumerate(captions):
        words = looking.tokenizer(caption, **plain)["input_ids"][: looking.config.max_query_tokens - 1]
        written = torch.tensor([[*words, 1]])
        inputs = torch.cat([torch.zeros(1, 1, dtype=torch.int64), written[:, :-1]], dim=1)
        log_probs = seen_logits(looking, vectors(4)[[row]], inputs).log_softmax(-1)
        torch.testing.assert_close(found[row], log_probs.gather(2, written[..., None]).sum(), rtol=1e-4, atol=1e-4)


def test_what_reads_vectors_survives_the_disk(looking, tmp_path):
    looking.save(tmp_path / "saved")
    again = T5Backbone(looking.config)
    again.load(tmp_path / "saved", VOKENS)
    targets = codes_for(looking, 3)
    torch.testing.assert_close(again.feature_logits(vectors(3), targets), looking.feature_logits(vectors(3), targets))
    said = [b.caption_log_probs(vectors(2), CAPTIONS[:2]) for b in (again, looking)]
    torch.testing.assert_close(*said)


def test_a_generator_that_never_saw_vectors_says_so(backbone):
    with pytest.raises(GenretError, match=r"loss\.memorize"):
        backbone.feature_logits(vectors(2), codes_for(backbone, 2))


def test_a_text_encoder_and_image_vectors_go_together(bert_folder, tmp_path):
    backbone = T5Backbone(T5Backbone.Config(**(SMALL | {"encoder": str(bert_folder), "num_layers": 0})))
    backbone.build(VOKENS, None, CAPTIONS, seed=0, feature_width=WIDTH)
    backbone.module.eval()
    assert backbone.vocab_size > 30 + VOKENS.num_symbols, "words are written, so words are needed"
    backbone.save(tmp_path / "saved")
    again = T5Backbone(backbone.config)
    again.load(tmp_path / "saved", VOKENS)
    said = [b.caption_log_probs(vectors(2), CAPTIONS[:2]) for b in (again, backbone)]
    torch.testing.assert_close(*said)
