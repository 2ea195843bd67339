"""residual-kmeans against scikit-learn's k-means, and against rq before any training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from genret.api import Corpus, FitContext
from genret.components.identifiers.residual_kmeans import ResidualKMeansIdentifier
from genret.errors import GenretError

torch.set_num_threads(1)


def corpus(num: int = 400) -> Corpus:
    generator = torch.Generator().manual_seed(0)
    features = F.normalize(torch.randn(num, 8, generator=generator), dim=-1)
    texts = F.normalize(features.repeat_interleave(2, 0) + 1.0, dim=-1)
    return Corpus([str(i) for i in range(num)], features, None, ["x"] * 2 * num, texts, torch.arange(2 * num) // 2)


def fitted(train: Corpus, **options: Any) -> ResidualKMeansIdentifier:
    config = ResidualKMeansIdentifier.Config(**({"codebook_size": 16, "num_levels": 3} | options))
    identifier, nothing = ResidualKMeansIdentifier(config), None
    context: Any = FitContext(0, torch.device("cpu"), Path(), nothing, lambda row: None)  # type: ignore[arg-type]
    identifier.fit(train, {}, context)
    return identifier


def error(identifier: ResidualKMeansIdentifier, vectors: torch.Tensor) -> float:
    codes = identifier.identify(Corpus([str(i) for i in range(len(vectors))], vectors)).codes
    return float((identifier.quantizer.decode(codes) - vectors).square().sum(1).mean())


def test_is_as_good_as_scikit_learns_residual_kmeans():
    cluster = pytest.importorskip("sklearn.cluster")
    train = corpus()
    residual = train.features.clone()
    for seed in range(3):
        reference = cluster.KMeans(16, n_init=1, max_iter=20, random_state=seed).fit(residual.numpy())
        residual -= torch.from_numpy(reference.cluster_centers_[reference.labels_])
    assert error(fitted(train), train.features) < 1.1 * float(residual.square().sum(1).mean())


def test_reconstructions_are_unit_sums_of_code_vectors():
    train = corpus(50)
    identifier = fitted(train)
    codes = identifier.identify(train).codes
    books = identifier.code_vectors().view(3, 16, 8)
    sums = sum(books[level][codes[:, level]] for level in range(3))
    torch.testing.assert_close(identifier.reconstruct(codes), F.normalize(sums, dim=-1))
    for level, found in enumerate(identifier.code_probabilities(train.features, codes, 0.2)):
        rest = train.features - sum((books[m][codes[:, m]] for m in range(level)), torch.zeros(50, 8))
        torch.testing.assert_close(found, (-torch.cdist(rest, books[level]).square() / 0.4).softmax(-1))


def test_fitting_texts_serves_texts():
    train = corpus()
    assert error(fitted(train, fit_texts=True), train.text_features) < error(fitted(train), train.text_features)


@pytest.mark.parametrize("collisions", ["keep", "extra-symbol", "nearest-free", "balanced"])
def test_save_and_load(tmp_path, collisions):
    train = corpus(80)
    identifier = fitted(train, codebook_size=6, num_levels=3, collisions=collisions)
    identifier.save(tmp_path)
    again = ResidualKMeansIdentifier(identifier.config)
    again.load(tmp_path)
    both = Corpus([*train.image_ids, "new"], torch.cat([train.features, train.features[:1]]))
    codes = identifier.identify(both).codes
    assert again.vokens == identifier.vokens and again.identify(both).codes.equal(codes)
    assert again.code_vectors().equal(identifier.code_vectors())
    assert (len(codes.unique(dim=0)) == 81) == (collisions != "keep")
    wrong = ResidualKMeansIdentifier(ResidualKMeansIdentifier.Config(codebook_size=7, collisions=collisions))
    with pytest.raises(GenretError, match="no usable identifier model"):
        wrong.load(tmp_path)
    with pytest.raises(GenretError, match="not fitted"):
        ResidualKMeansIdentifier().identify(train)
