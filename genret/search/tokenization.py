"""Conversion between a catalog's rows, identifiers, and the tokens of a backbone.

Independent of tries and searches.

    R identifiers   N images   L tokens
"""

from __future__ import annotations

import torch
from torch import Tensor

from genret.api import Backbone, Identifiers, SearchScore
from genret.catalog.codec import pack_codes, pack_texts
from genret.errors import GenretError


def tokenize_identifiers(backbone: Backbone, identifiers: Identifiers, end_symbol: bool) -> Tensor:
    """(R, L) token ids, -1 pads; the end symbol is added if requested, or if identifiers may vary in length."""
    tokens = backbone.tokens(identifiers)
    if not end_symbol and not may_end_early(backbone):
        if bool((tokens < 0).any()):
            raise GenretError("identifiers of this scheme vary in length, so its `vokens` have to say `variable=True`")
        return tokens
    tokens = torch.nn.functional.pad(tokens, (0, 1), value=-1)
    lengths = (tokens >= 0).sum(1, keepdim=True)
    return tokens.scatter(1, lengths, backbone.end_token)


def may_end_early(backbone: Backbone) -> bool:
    """Whether the scheme's identifiers vary in length: text identifiers, and schemes that declare it.

    This is a property of the scheme, not of given identifiers: a few may be equally long by chance, and must be
    tokenized as in training.
    """
    first, second = backbone.level_tokens(0), backbone.level_tokens(1)
    return first is None or (second is not None and bool((second == backbone.end_token).any()))


def columns_of(backbone: Backbone, score: SearchScore, length: int) -> list[Tensor | None]:
    """The tokens over which position l is normalized, None for the whole vocabulary.

    The search itself normalizes for `trie`; training has no trie and treats it like `level`.
    """
    return [None if score == "vocab" else backbone.level_tokens(level) for level in range(length)]


def packed_by_image(identifiers: Identifiers, num_images: int) -> list[list[bytes]]:
    """The identifiers of each image in the catalog's packed form."""
    if identifiers.codes is not None:
        blobs = pack_codes(identifiers.codes)
    else:
        blobs = pack_texts(identifiers.texts or ())
    packed: list[list[bytes]] = [[] for _ in range(num_images)]
    for owner, blob in zip(identifiers.owners.tolist(), blobs, strict=True):
        packed[owner].append(blob)
    return packed
