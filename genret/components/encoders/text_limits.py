"""How many tokens of a text a transformers model can read."""

from __future__ import annotations

from typing import Any

MOST = 8192
COUNT_FROM_PADDING = frozenset(
    ("roberta", "xlm-roberta", "xlm-roberta-xl", "roberta-prelayernorm", "camembert", "mpnet", "data2vec-text", "ibert",
     "longformer", "luke", "xmod", "altclip_text_model")
)  # fmt: skip
"""Models whose first token stands at the position after the padding index, so that the table's first rows are lost."""


def most_tokens(settings: Any, tokenizer: Any, said: int | None = None) -> int:
    """Within what the model's table of positions, its tokenizer and `said` allow."""
    positions = getattr(settings, "max_position_embeddings", None)
    if isinstance(positions, int) and settings.model_type in COUNT_FROM_PADDING:
        positions -= settings.pad_token_id + 1
    limits = [said, tokenizer.model_max_length, positions, MOST]
    return min(limit for limit in limits if isinstance(limit, int) and limit > 0)
