"""The small tokenizer: what it was not trained on can still be spelt, and saved files spell alike."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from genret.components.backbones.tokenizers import cut_texts, train_tokenizer

CAPTIONS = ["two dogs in the snow", "a red car", "a boy jumps into the water"]


@pytest.fixture(scope="module")
def spelling():
    return train_tokenizer(CAPTIONS, 100, byte_fallback=True)


def plain(text: str) -> str:
    """A text as an identifier: letters that the tokenizer would not change, one blank between words."""
    text = "".join(
        letter.lower() if len(letter.lower()) == 1 else "?" for letter in unicodedata.normalize("NFKC", text)
    )
    return " ".join(unicodedata.normalize("NFKC", text).replace("▁", "_").split())


def rows(tokenizer, texts):
    return [[token for token in row if token >= 0] for row in cut_texts(tokenizer, texts).tolist()]


@settings(deadline=None, max_examples=300)
@given(st.text(max_size=20).map(plain).filter(bool))
def test_every_text_can_be_spelt_and_read_back(spelling, text):
    (tokens,) = rows(spelling, [text])
    assert spelling.decode(tokens) == text
    assert not {0, 1, 2} & set(tokens), "neither unknown pieces nor the names of special ones"


@pytest.mark.parametrize("text", ["</s>", "a</s>b", "<pad>", "<unk>", "<0x41>", "2024", "🐶 日本"])
def test_odd_texts(spelling, text):
    assert spelling.decode(rows(spelling, [text])[0]) == text


@settings(deadline=None, max_examples=100)
@given(st.lists(st.integers(0, 10**7), min_size=2, max_size=30, unique=True))
def test_different_numbers_have_different_tokens(spelling, numbers):
    found = rows(spelling, [str(number) for number in numbers])
    assert len(set(map(tuple, found))) == len(numbers)


def test_bytes_come_behind_the_pieces_and_only_where_asked_for(spelling, tmp_path):
    pieces = train_tokenizer(CAPTIONS, 100)
    assert len(spelling) == len(pieces) + 256
    assert {name: spelling.get_vocab()[name] for name in pieces.get_vocab()} == pieces.get_vocab()
    assert spelling(CAPTIONS)["input_ids"] == pieces(CAPTIONS)["input_ids"]
    assert 2 in pieces("2024")["input_ids"]
    spelling.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    texts = ["2024", "🐶 a</s>b", *CAPTIONS]
    assert cut_texts(again, texts).equal(cut_texts(spelling, texts))
    assert again(texts)["input_ids"] == spelling(texts)["input_ids"]
