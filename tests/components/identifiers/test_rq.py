"""The rq identifier: each loss does what the paper says of it; training beats plain residual k-means."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from genret.api import Corpus, FitContext, Silent, TokenizerBatch
from genret.components.identifiers.rq import RQIdentifier, RQTraining
from genret.components.losses.tokenizer import AlignLoss, CommitLoss, DiversityLoss, ReconLoss
from genret.errors import GenretError
from genret.kit import checkpoint
from genret.toolbox.codes.training import CaptionVectors, Texts, loss_terms
from genret.toolbox.codes.usage import usage_statistics


def context(folder: Path) -> FitContext:
    return FitContext(0, torch.device("cpu"), folder, Silent().progress, lambda row: None)


def corpus(num: int = 300, width: int = 16) -> Corpus:
    """Clusters, with captions that sit beside their pictures in one fixed direction."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(12, width, generator=generator)
    which = torch.arange(num) % 12
    features = F.normalize(centres[which] + 0.3 * torch.randn(num, width, generator=generator), dim=-1)
    shift = F.normalize(torch.randn(width, generator=generator), dim=0)
    texts = F.normalize(features.repeat_interleave(2, 0) + 0.8 * shift, dim=-1)
    owners = torch.arange(num).repeat_interleave(2)
    return Corpus([str(i) for i in range(num)], features, None, ["x"] * 2 * num, texts, owners)


def fitted(
    folder: Path, train: Corpus, losses=("recon", "commit", "align"), epochs: int = 60, **options
) -> RQIdentifier:
    kinds = {"recon": ReconLoss, "commit": CommitLoss, "align": AlignLoss}
    training = RQTraining(epochs=epochs, batch_size=100, lr=3e-3)
    identifier = RQIdentifier(
        RQIdentifier.Config(**({"codebook_size": 16, "num_levels": 3, "train": training} | options))
    )
    identifier.fit(train, {name: kinds[name]() for name in losses}, context(folder))
    return identifier


def error(identifier: RQIdentifier, train: Corpus, target: torch.Tensor) -> float:
    codes = identifier.identify(train).codes
    return float((identifier.reconstruct(codes) - target).square().sum(-1).mean())


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("codebooks", ["ema", "gradient"])
def test_training_reconstructs_at_least_as_well_as_plain_residual_kmeans(tmp_path, shared, codebooks):
    train = corpus()
    plain = fitted(tmp_path / "a", train, epochs=0, shared_codebook=shared, codebooks=codebooks)
    trained = fitted(tmp_path / "b", train, ("recon", "commit"), shared_codebook=shared, codebooks=codebooks)
    assert error(trained, train, train.features) < error(plain, train, train.features)
    assert trained.vokens.num_symbols == (16 if shared else 48) == len(trained.code_vectors())


def test_the_align_loss_pulls_reconstructions_towards_the_captions(tmp_path):
    train = corpus()
    text = train.text_features[::2]
    without = fitted(tmp_path / "a", train, ("recon", "commit"))
    aligned = fitted(tmp_path / "b", train)
    assert error(aligned, train, text) < 0.7 * error(without, train, text)


def test_codes_are_the_nearest_codes_of_the_saved_books(tmp_path):
    train = corpus(60)
    identifier = fitted(tmp_path, train, epochs=3, latent_width=8)
    codes = identifier.identify(train).codes
    residual = train.features @ identifier.network.latent.weight.detach().T
    books = identifier.code_vectors().view(3, 16, 8)
    for level in range(3):
        nearest = torch.cdist(residual, books[level]).argmin(1)
        assert torch.equal(codes[:, level], nearest)
        residual = residual - books[level][nearest]


def test_save_and_load_give_the_same_identifiers_also_for_new_images(tmp_path):
    identifier = fitted(tmp_path, corpus(60), epochs=3)
    identifier.save(tmp_path / "saved")
    again = RQIdentifier(identifier.config)
    again.load(tmp_path / "saved")
    new = corpus(200)
    assert torch.equal(again.identify(new).codes, identifier.identify(new).codes)
    assert torch.equal(
        again.reconstruct(again.identify(new).codes), identifier.reconstruct(identifier.identify(new).codes)
    )


def test_a_killed_fit_resumes_to_the_same_codes(tmp_path, monkeypatch):
    train = corpus()
    straight = fitted(tmp_path / "straight", train, epochs=6)
    monkeypatch.setattr(checkpoint, "SECONDS", 0.0)
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: 0.0)
    real, steps = ReconLoss.__call__, []

    def killing(self, batch):
        steps.append(1)
        if len(steps) in (5, 9):
            raise KeyboardInterrupt
        return real(self, batch)

    monkeypatch.setattr(ReconLoss, "__call__", killing)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            fitted(tmp_path / "stopped", train, epochs=6)
    resumed = fitted(tmp_path / "stopped", train, epochs=6)
    assert torch.equal(resumed.identify(train).codes, straight.identify(train).codes)
    for key, value in straight.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[key]), key


def test_text_losses_look_at_captioned_pictures_alone(tmp_path):
    """Where every other picture has no caption, the align loss equals that of the captioned ones by themselves."""
    network = fitted(tmp_path, corpus(60), epochs=1).network.eval()
    features, texts = corpus(8).features, torch.randn(4, 16)
    out = network(features)
    batch = TokenizerBatch(features, None, out.latent, out.partial, out.reconstruction, [torch.randn(8, 3)])
    rows = torch.tensor([1, 3, 5, 7])
    losses = {"recon": ReconLoss(), "align": AlignLoss()}
    terms = loss_terms(batch, Texts(rows, texts), losses)
    half = network(features[rows])
    assert torch.allclose(terms["align"], (half.reconstruction - texts).square().sum(-1).mean())
    assert torch.allclose(terms["recon"], (out.reconstruction - features).square().sum(-1).mean())
    assert list(loss_terms(batch, Texts(rows[:0], texts[:0]), losses)) == ["recon"], "none left: not computed"


@pytest.mark.parametrize("fit_texts", [False, True])
def test_pictures_without_captions_are_fitted_too(tmp_path, fit_texts):
    train = corpus(60)
    captioned = train.owners >= 30
    half = train._replace(owners=train.owners[captioned], text_features=train.text_features[captioned])
    identifier = fitted(tmp_path / "a", half, fit_texts=fit_texts, epochs=40)
    plain = fitted(tmp_path / "b", train, ("recon", "commit"), fit_texts=fit_texts, epochs=40)
    text = train.text_features[::2]
    assert error(identifier, train, text) < error(plain, train, text), "what captions teach holds for the others, too"


def test_each_image_gets_one_of_its_own_captions():
    train = corpus(20)
    shuffled = torch.randperm(40, generator=torch.Generator().manual_seed(1))
    shuffled = shuffled[train.owners[shuffled] % 3 > 0]  # every third picture has none
    vectors = CaptionVectors(
        train._replace(owners=train.owners[shuffled], text_features=train.text_features[shuffled]), torch.device("cpu")
    )
    seen = set()
    for _ in range(50):
        drawn = vectors.sample(torch.arange(20))
        assert drawn.rows.tolist() == [image for image in range(20) if image % 3]
        for image, vector in zip(drawn.rows.tolist(), drawn.vectors, strict=True):
            (caption,) = (train.text_features == vector).all(1).nonzero()[:, 0].tolist()[:1]
            assert caption // 2 == image or torch.equal(train.text_features[2 * image], vector)
            seen.add(image)
    assert len(seen) == 13


def test_no_caption_at_all_and_an_unfitted_scheme_are_explained(tmp_path):
    train = corpus(60)
    bare = train.without_captions()
    with pytest.raises(GenretError, match="no training image has a caption"):
        fitted(tmp_path / "a", bare, epochs=1)
    fitted(tmp_path / "b", bare, ("recon", "commit"), epochs=1)
    with pytest.raises(GenretError, match="not fitted"):
        RQIdentifier().identify(train)
    with pytest.raises(GenretError, match="no usable identifier"):
        RQIdentifier().load(tmp_path)


def test_the_diversity_loss_spreads_the_codes(tmp_path):
    train = corpus()
    usage = {}
    for weight in (0.0, 3.0):
        losses = {
            "recon": ReconLoss(),
            "diversity": DiversityLoss(DiversityLoss.Config(weight=weight, temperature=0.1)),
        }
        training = RQTraining(epochs=60, batch_size=100, lr=3e-3)
        options = {"codebook_size": 16, "num_levels": 2, "codebooks": "gradient", "dead_code_threshold": 0.0}
        identifier = RQIdentifier(RQIdentifier.Config(**options, kmeans_iters=0, train=training))
        identifier.fit(train, losses, context(tmp_path / str(weight)))
        usage[weight] = sum(level.entropy for level in usage_statistics(identifier.identify(train).codes, (16, 16)))
    assert usage[3.0] > usage[0.0]


@pytest.mark.parametrize("how", ["extra-symbol", "nearest-free", "balanced"])
def test_identifiers_are_unique_where_collisions_are_avoided(tmp_path, how):
    train = corpus(100)
    train = train._replace(features=train.features[torch.arange(100) // 2])  # everyone has a twin
    identifier = fitted(tmp_path, train, epochs=2, collisions=how, codebook_size=8, num_levels=3)
    codes = identifier.identify(train).codes
    assert identifier.avoids_collisions and len(codes.unique(dim=0)) == 100
    assert codes.shape[1] == len(identifier.vokens.sizes)
    identifier.save(tmp_path / "saved")
    again = RQIdentifier(identifier.config)
    again.load(tmp_path / "saved")
    assert again.vokens == identifier.vokens
    other = corpus(40)._replace(image_ids=[f"new {i}" for i in range(40)], taken=codes)
    new = again.identify(other).codes
    assert new.equal(identifier.identify(other).codes)
    assert len(torch.cat([codes, new]).unique(dim=0)) == 140
    assert again.reconstruct(new).shape == (40, 16)
    assert len(again.code_vectors()) == again.vokens.num_symbols
    for level, size in zip(again.code_probabilities(other.features, new, 0.1), again.vokens.sizes, strict=True):
        assert level.shape == (40, size) and torch.allclose(level.sum(1), torch.ones(40))


def test_displaced_images_go_to_the_nearest_sums(tmp_path):
    """By all sums of code vectors: what a wide enough search calls the nearest free code is the nearest."""
    train = corpus(12)
    train = train._replace(features=train.features[:1].expand(12, -1))
    identifier = fitted(tmp_path, train, epochs=0, collisions="nearest-free", codebook_size=4, num_levels=2)
    codes = identifier.identify(train).codes
    every = torch.cartesian_prod(torch.arange(4), torch.arange(4))
    books = identifier.code_vectors().view(2, 4, 16)
    sums = books[0][every[:, 0]] + books[1][every[:, 1]]
    latent = train.features[0] @ identifier.network.latent.weight.detach().T
    order = (sums - latent).square().sum(1).argsort(stable=True)
    expected = (sums[order[:12]] - latent).square().sum(1)
    got = (books[0][codes[:, 0]] + books[1][codes[:, 1]] - latent).square().sum(1)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-4)
