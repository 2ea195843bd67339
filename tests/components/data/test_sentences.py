"""Sentences that teach in place of captions: from files, and composed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from genret.components.data.sentences import SentencesDataset
from genret.components.data.words import WordsDataset, lists, one, several
from genret.errors import BadImage, GenretError, UnknownName


def texts(data: Any, split: str) -> list[str]:
    return [text for record in data.records(split) for text in record.captions]


def of(file: Path, **options: Any) -> SentencesDataset:
    return SentencesDataset(SentencesDataset.Config(file=file, **options))


def test_a_line_a_sentence_a_tenth_held_out(tmp_path: Path) -> None:
    file = tmp_path / "lines.txt"
    lines = [f"sentence  number {number}" for number in range(3000)]
    file.write_text("\n\n".join(lines))
    data = of(file)
    learnt, held = texts(data, data.train_split), texts(data, data.dev_split)
    assert sorted(learnt + held) == sorted(" ".join(line.split()) for line in lines)
    assert not set(learnt) & set(held) and 240 < len(held) < 360
    file.write_text("one more before\n" + "\n".join(lines))
    assert set(held) <= set(texts(data, data.dev_split)), "more sentences move none to the other side"
    assert len(texts(of(file, limit=50), "train") + texts(of(file, limit=50), "held-out")) == 50


def test_what_a_captioner_writes(tmp_path: Path) -> None:
    file = tmp_path / "made.jsonl"
    rows = [{"image_id": "a.jpg", "caption": "a dog"}, {"caption": ["two  cats", ""]}]
    file.write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    assert sorted(texts(of(file), "train") + texts(of(file), "held-out")) == ["a dog", "two cats"]
    file.write_text('{"caption": "a dog"}\n{"text": "a cat"}\n')
    with pytest.raises(GenretError, match=r"made\.jsonl:2: should be"):
        texts(of(file), "train")


@pytest.mark.parametrize("text", ["lonely", "a", "a red dog"])
def test_a_single_sentence_is_learnt_whatever_its_hash(tmp_path: Path, text: str) -> None:
    file = tmp_path / "one.txt"
    file.write_text(text)
    assert texts(of(file), "train") == [text]


def test_what_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(GenretError, match=r"texts\.file: cannot read .*gone\.txt"):
        texts(of(tmp_path / "gone.txt"), "train")
    (tmp_path / "none.txt").write_text(" \n\n")
    with pytest.raises(GenretError, match="has no sentences"):
        texts(of(tmp_path / "none.txt"), "train")
    (tmp_path / "latin.txt").write_bytes("bär\n".encode("latin-1"))
    with pytest.raises(GenretError, match=r"latin\.txt"):
        texts(of(tmp_path / "latin.txt"), "train")
    assert texts(of(tmp_path / "latin.txt", encoding="latin-1"), "train") == ["bär"]
    with pytest.raises(UnknownName, match="held-out"):
        texts(of(tmp_path / "latin.txt"), "test")
    data = of(tmp_path / "latin.txt", encoding="latin-1")
    with pytest.raises(BadImage, match="under `texts`"):
        data.read(next(data.records("train")))


def test_composed_sentences() -> None:
    data = WordsDataset(WordsDataset.Config(count=3000))
    found = texts(data, "train") + texts(data, "held-out")
    assert len(found) == len(set(found)) == 3000
    assert set(texts(data, "train")) != set(texts(WordsDataset(WordsDataset.Config(count=3000, seed=1)), "train"))
    assert all(text == " ".join(text.split()) and text for text in found), "one line, single spaces"
    words = lists()
    assert (len(words.common), len(words.known), len(words.rare)) == (80, 1000, 11821), "what the docs say"
    assert 300 < len(words.actions) <= 400 and len(words.prompts) == 80
    assert "dog" in words.common and "N/A" not in words.common
    mentioned = " ".join(found)
    assert all(f" {word}" in mentioned for word in ("dog", "beach", "riding", "photo of", "red", "two"))


def test_articles_and_plurals() -> None:
    assert (one("apple"), one("dog")) == ("an apple", "a dog")
    assert [several(noun) for noun in ("dog", "bus", "bench", "pony", "monkey")] == [
        "dogs", "buses", "benches", "ponies", "monkeys",
    ]  # fmt: skip
