"""The beam search with a real T5 against transformers' own constrained `generate`."""

import pytest
import torch
from transformers import DynamicCache, EncoderDecoderCache, T5Config, T5ForConditionalGeneration

from genret.components.backbones.llama_tree import cache_argument
from genret.decode.beam import beam_search
from genret.decode.trie import Trie

torch.set_num_threads(1)

VOCAB, END, PAD, CODES, LEVELS = 60, 1, 0, 8, 3


def tiny_t5(seed):
    torch.manual_seed(seed)
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2, "vocab_size": VOCAB}
    model = T5ForConditionalGeneration(
        T5Config(**sizes, decoder_start_token_id=PAD, pad_token_id=PAD, eos_token_id=END)
    )
    for parameter in model.parameters():  # a fresh T5 is nearly indifferent; this one has opinions
        torch.nn.init.normal_(parameter, std=0.7)
    return model.eval()


class Adapter:
    """The least that makes transformers' T5 a model for the search: cached steps on (B * b) sequences."""

    def __init__(self, model):
        self.model = model

    def prefill(self, queries):
        ids = [[int(word) for word in query.split()] for query in queries]
        length = max(map(len, ids))
        tokens = torch.tensor([[*row, *[PAD] * (length - len(row))] for row in ids])
        mask = (tokens != PAD).long()
        encoded = self.model.encoder(input_ids=tokens, attention_mask=mask).last_hidden_state
        return {"encoded": encoded, "mask": mask, "cache": EncoderDecoderCache(DynamicCache(), DynamicCache())}

    def step(self, state, symbols, parents, columns):
        batch = len(state["encoded"])
        if symbols is None:
            symbols = torch.full((batch, 1), PAD)
        else:
            state["cache"].reorder_cache((torch.arange(batch)[:, None] * state["width"] + parents).flatten())
        state["width"] = symbols.shape[1]
        owners = torch.arange(batch).repeat_interleave(state["width"])
        logits = self.model(
            encoder_outputs=(state["encoded"][owners],),
            attention_mask=state["mask"][owners],
            decoder_input_ids=symbols.reshape(-1, 1),
            **{cache_argument(self.model): state["cache"]},
        ).logits.view(*symbols.shape, -1)
        return logits if columns is None else logits[..., columns]


def sequences_of(seed, count, length=LEVELS):
    """Distinct identifiers as a residual quantizer would give: each level has its own tokens; then the end symbol."""
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, CODES, (count, length), generator=generator) + 10 + CODES * torch.arange(length)
    return torch.cat([codes, torch.full((count, 1), END)], 1).unique(dim=0)


QUERIES = ["31 12 7 1", "50 1", "8 8 44 23 19 1"]


def generate(model, queries, rows, num_beams):
    """transformers' sequences without the start symbol, and their scores, (B, b, ...)."""
    following = {}
    for row in rows.tolist():
        for d in range(len(row)):
            following.setdefault((PAD, *row[:d]), set()).add(row[d])
    inputs = Adapter(model).prefill(queries)
    words = [[int(word) for word in query.split()] for query in queries]
    tokens = torch.tensor([[*row, *[PAD] * (inputs["mask"].shape[1] - len(row))] for row in words])
    out = model.generate(
        input_ids=tokens,
        attention_mask=inputs["mask"],
        num_beams=num_beams,
        num_return_sequences=num_beams,
        prefix_allowed_tokens_fn=lambda _, prefix: sorted(following.get(tuple(prefix.tolist()), {PAD})),
        length_penalty=0.0,
        early_stopping=False,
        do_sample=False,
        max_new_tokens=rows.shape[1] + 1,
        return_dict_in_generate=True,
        output_scores=True,
    )
    shape = len(queries), num_beams
    return out.sequences[:, 1 : rows.shape[1] + 1].view(*shape, -1), out.sequences_scores.view(shape)


@pytest.mark.parametrize("num_beams", [2, 5, 10])
@pytest.mark.parametrize("seed", range(5))
def test_vocab_scores_equal_generate(seed, num_beams):
    model = tiny_t5(seed)
    rows = sequences_of(seed, 150)
    trie = Trie.build(rows)
    found = beam_search(Adapter(model), QUERIES, trie, num_beams, "vocab")
    sequences, scores = generate(model, QUERIES, rows, num_beams)
    assert found.scores.isfinite().all()
    assert trie.tokens_of(found.leaves).equal(sequences)
    torch.testing.assert_close(found.scores, scores, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("score", ["level", "vocab", "trie"])
def test_wide_beams_equal_teacher_forcing_of_every_identifier(score):
    """Variable lengths; the scores of one forward pass per identifier, normalized by hand."""
    model = tiny_t5(7)
    rows = [row.tolist() for length in (1, 2, 3) for row in sequences_of(length, 12, length)]
    padded = torch.tensor([row + [-1] * (LEVELS + 1 - len(row)) for row in rows])
    trie = Trie.build(padded)
    levels = [torch.tensor([END, *range(10 + CODES * d, 10 + CODES * (d + 1))]) for d in range(LEVELS)]
    found = beam_search(Adapter(model), QUERIES[:1], trie, len(rows) + 5, score, [*levels, torch.tensor([END])])
    words = torch.tensor([[int(word) for word in QUERIES[0].split()]])
    expected = {}
    for row in rows:
        inputs = torch.tensor([[PAD, *row[:-1]]])
        logits = model(input_ids=words, decoder_input_ids=inputs).logits[0].detach()
        total = 0.0
        for d, token in enumerate(row):
            rivals = {
                "vocab": range(VOCAB),
                "level": levels[d].tolist() if d < LEVELS else [END],
                "trie": {other[d] for other in rows if other[:d] == row[:d]},
            }[score]
            total += float(logits[d, token] - logits[d, list(rivals)].logsumexp(0))
        expected[tuple(row)] = total
    got = [tuple(t for t in row if t >= 0) for row in trie.tokens_of(found.leaves[0]).tolist()]
    assert sorted(got) == sorted(expected)
    assert found.scores[0].tolist() == pytest.approx([expected[row] for row in got], abs=1e-3)
    assert found.scores[0].diff().le(0).all()
