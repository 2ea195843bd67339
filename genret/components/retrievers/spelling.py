"""How a backbone spells identifiers, and a catalog's rows by image.

R identifiers   N images
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from genret.api import Backbone, Identifiers, Vokens
from genret.catalog.store import IdentifierRows
from genret.kit.images import content_hash
from genret.search.ranking import Ints
from genret.search.tokenization import may_end_early


def strip_padding(tokens: Tensor) -> tuple[int, ...]:
    """A row of tokens without padding."""
    return tuple(tokens[tokens >= 0].tolist())


def tokenization_key(backbone: Backbone, vokens: Vokens, end_symbol: bool) -> str:
    """A key of the tokens that represent a scheme's codes; for text, only of how it ends."""
    spelt = torch.zeros(0, 0, dtype=torch.int64)
    if vokens.sizes:  # row c has code c of every level, or the level's last code
        levels = [torch.arange(max(vokens.sizes)).clamp_max(size - 1) for size in vokens.sizes]
        spelt = backbone.tokens(Identifiers(torch.arange(max(vokens.sizes)), torch.stack(levels, 1)))
    facts = end_symbol or may_end_early(backbone), backbone.end_token, backbone.vocab_size, *spelt.shape
    return content_hash(repr(facts).encode() + spelt.cpu().numpy().astype("<i8").tobytes())


def by_image(rows: IdentifierRows) -> tuple[Ints, Identifiers]:
    """A catalog's rows → the images' keys (N,), ascending, and identifiers whose owners index them."""
    images, owners = np.unique(rows.image_keys, return_inverse=True)
    return images, as_identifiers(rows)._replace(owners=torch.from_numpy(owners))


def as_identifiers(rows: IdentifierRows) -> Identifiers:
    """A catalog's rows as identifiers; the owners are the images' keys."""
    codes = None if rows.codes is None else torch.from_numpy(rows.codes).long()
    return Identifiers(torch.from_numpy(rows.image_keys), codes, rows.texts)


def symbols(rows: IdentifierRows, places: Sequence[int], name: Callable[[int, int], str]) -> list[list[str] | None]:
    """What people read of the identifiers at some places: texts, or the name of each level's code."""
    if rows.codes is None:
        assert rows.texts is not None
        return [[rows.texts[place]] for place in places]
    codes = rows.codes[np.array(places, np.int64)].tolist()
    return [[name(level, code) for level, code in enumerate(row) if code >= 0] for row in codes]
