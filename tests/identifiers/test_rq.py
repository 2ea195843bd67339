"""The rq identifier: each loss does what the paper says of it; training beats plain residual k-means."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from genret import loop
from genret.errors import GenretError
from genret.identifiers.rq import RQIdentifier, RQTraining
from genret.interfaces import Corpus, FitContext
from genret.losses.tokenizer import AlignLoss, CommitLoss, ReconLoss


class Bar:
    def advance(self, n: int) -> None:
        pass


@contextmanager
def progress(label: str, total: int):
    yield Bar()


def context(folder: Path) -> FitContext:
    return FitContext(0, torch.device("cpu"), folder, progress, lambda row: None)


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
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(loop.time, "monotonic", lambda: 0.0)
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


def test_a_picture_without_caption_and_an_unfitted_scheme_are_explained(tmp_path):
    train = corpus(60)
    bare = train._replace(owners=train.owners[2:], text_features=train.text_features[2:])
    with pytest.raises(GenretError, match="'0' has none"):
        fitted(tmp_path, bare, epochs=1)
    with pytest.raises(GenretError, match="not fitted"):
        RQIdentifier().identify(train)
    with pytest.raises(GenretError, match="no usable identifier"):
        RQIdentifier().load(tmp_path)
