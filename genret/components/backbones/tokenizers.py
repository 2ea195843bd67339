"""Trains a subword tokenizer on the training captions, and tokenizes identifiers of text with any tokenizer."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerFast


def train_tokenizer(texts: Iterable[str], vocab_size: int, byte_fallback: bool = False) -> Any:
    """Byte-pair encoding over lower-cased words; T5's special tokens at T5's ids (0 pad, 1 end, 2 unknown).

    BPE, not T5's unigram model: its trainer breaks ties by piece id, so the same captions always give the same pieces.

    `byte_fallback`: 256 more tokens encode unknown characters byte by byte, so that any two different lower-cased texts
    have different tokens. Identifiers of text need that; queries do not.
    """
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Metaspace(), pre_tokenizers.Punctuation()])
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<pad>", "</s>", "<unk>"],
        limit_alphabet=vocab_size // 2,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    if byte_fallback:
        tokenizer = _with_bytes(tokenizer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=512
    )


def cut_texts(tokenizer: Any, texts: Sequence[str]) -> Tensor:
    """R texts → (R, L) int64 token ids, -1 after the end; no end token.

    The name of a special token ("</s>") in a text is treated as plain text.
    """
    rows = tokenizer(list(texts), add_special_tokens=False, split_special_tokens=True)["input_ids"]
    return pad_sequence([torch.tensor(row, dtype=torch.int64) for row in rows], batch_first=True, padding_value=-1)


def _with_bytes(tokenizer: Tokenizer) -> Tokenizer:
    """Adds the bytes to the vocabulary itself: added tokens would also match their names in a text."""
    state = json.loads(tokenizer.to_str())
    vocabulary = state["model"]["vocab"]
    for byte in range(256):
        vocabulary[f"<0x{byte:02X}>"] = len(vocabulary)
    state["model"]["byte_fallback"] = True
    spelling = Tokenizer.from_str(json.dumps(state))
    spelling.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    return spelling
