"""Which sentences have an image to themselves: against loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from genret.lab.confidence.sentences import NEIGHBOURS, Expectations, mutual


@pytest.mark.parametrize(("num_texts", "num_images"), [(40, 25), (30, 3), (4, 1), (1, 1)])
def test_mutual_neighbours_against_loops(num_texts: int, num_images: int) -> None:
    random = torch.Generator().manual_seed(num_texts)
    texts, images = (F.normalize(torch.randn(n, 6, generator=random), dim=-1) for n in (num_texts, num_images))
    cosine = (texts @ images.T).numpy()
    of_text = [np.sort(row)[::-1][:NEIGHBOURS].mean() for row in cosine]
    of_image = [np.sort(row)[::-1][:NEIGHBOURS].mean() for row in cosine.T]
    score = np.array(
        [[2 * cosine[q, n] - of_text[q] - of_image[n] for n in range(num_images)] for q in range(num_texts)]
    )
    wanted = {(q, int(score[q].argmax())) for q in range(num_texts)}
    wanted = {(q, n) for q, n in wanted if score[:, n].argmax() == q}
    rows, found = mutual(texts, images)
    assert set(zip(rows.tolist(), found.tolist(), strict=True)) == wanted and len(rows) == len(wanted)
    assert (np.diff(score[rows, found]) <= 1e-6).all(), "the clearest first"


def test_what_is_said_names_no_recall() -> None:
    told = Expectations(num_sentences=9, num_images=20, same_first=75.0, first_in_ten=None, examples=[])
    (line,) = told.lines()
    assert "no recall can be measured" in line and "75 %" in line and "first ten" not in line
