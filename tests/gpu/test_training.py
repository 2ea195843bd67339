"""Two training steps of each trained stage on the device: finite losses near the CPU's, and a resumed run's."""

import pytest
import torch

from bench.models import model, queries
from genret.api import Corpus, FitContext, LoopOptions, Silent
from genret.components.identifiers.rq import RQIdentifier, RQTraining
from genret.components.losses.tokenizer import CommitLoss, ReconLoss
from genret.kit import loop

pytestmark = pytest.mark.gpu
BATCH, STEPS = 8, 2


class Killed(Exception):
    pass


def train(module, step, place, folder, bf16, epochs=STEPS, stop_after=None, on_batch=None):
    """Runs the loop, one step an epoch, and returns its losses; `stop_after` epochs it is killed."""
    losses = []

    def log(row):
        if "loss" in row:
            losses.append(row["loss"])

    def counted(indices, epoch, number):
        if stop_after is not None and epoch >= stop_after:
            raise Killed
        return step(indices)

    context = FitContext(0, place, folder, Silent().progress, log)
    options = LoopOptions(epochs=epochs, batch_size=BATCH, lr=1e-3, bf16=bf16, schedule="constant")
    loop.run(module, counted, BATCH, options, context)
    return losses


def generator(name, place):
    network = model(name, place, trains=True)
    targets = torch.randint(32, (BATCH, 4), generator=torch.Generator().manual_seed(0))
    targets = (targets + torch.tensor([int(level[0]) for level in network.level_tokens])).to(place)
    texts = queries(BATCH, 0)

    def step(indices):
        logits = network.backbone.logits([texts[i] for i in indices.tolist()], targets[indices.to(place)])
        wanted = targets[indices.to(place)].flatten()
        return {"loss": torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), wanted)}

    network.backbone.module.apply(lambda one: setattr(one, "p", 0.0) if isinstance(one, torch.nn.Dropout) else None)
    return network.backbone.module, step


def heads(_, place):
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(16, 16), torch.nn.GELU(), torch.nn.Linear(16, 8)).to(place)
    images, texts = torch.randn(2, BATCH, 16, generator=torch.Generator().manual_seed(1)).to(place)

    def step(indices):
        rows = indices.to(place)
        one, other = (torch.nn.functional.normalize(module(given[rows]), dim=-1) for given in (images, texts))
        return {"loss": torch.nn.functional.cross_entropy(one @ other.T / 0.1, torch.arange(len(rows), device=place))}

    return module, step


STAGES = {"t5": (generator, "t5-tiny"), "llama": (generator, "llama-tiny"), "heads": (heads, "")}


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("bf16", [False, True])
def test_two_steps_give_the_losses_of_the_cpu(stage, bf16, device, tmp_path):
    make, name = STAGES[stage]
    cpu = torch.device("cpu")
    wanted = train(*make(name, cpu), cpu, tmp_path / "cpu", False)
    losses = train(*make(name, device), device, tmp_path / "device", bf16)
    assert len(losses) == STEPS and losses[1] < losses[0]
    assert losses == pytest.approx(wanted, rel=0.05 if bf16 else 1e-3)


@pytest.mark.parametrize("stage", STAGES)
def test_a_killed_run_resumes_with_the_same_bits(stage, device, tmp_path, monkeypatch):
    monkeypatch.setattr("genret.kit.checkpoint.SECONDS", 0.0)
    monkeypatch.setattr("genret.kit.checkpoint.COST_FACTOR", 0)
    make, name = STAGES[stage]
    whole, step = make(name, device)
    train(whole, step, device, tmp_path / "whole", True)
    part, step = make(name, device)
    with pytest.raises(Killed):
        train(part, step, device, tmp_path / "part", True, stop_after=1)
    again, step = make(name, device)
    resumed = train(again, step, device, tmp_path / "part", True)
    assert len(resumed) == STEPS - 1, "the first epoch is not run again"
    for key, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[key]), key


def quantizer(place, folder, epochs):
    """An rq identifier trained on clusters; how far its reconstructions are from the features."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(12, 16, generator=generator)
    features = centres[torch.arange(300) % 12] + 0.3 * torch.randn(300, 16, generator=generator)
    features = torch.nn.functional.normalize(features, dim=-1)
    corpus = Corpus([str(i) for i in range(300)], features, None, [], features[:0], torch.arange(0))
    training = RQTraining(epochs=epochs, batch_size=100, lr=3e-3)
    identifier = RQIdentifier(RQIdentifier.Config(codebook_size=16, num_levels=3, train=training))
    losses = {"recon": ReconLoss(), "commit": CommitLoss()}
    identifier.fit(corpus, losses, FitContext(0, place, folder, Silent().progress, lambda row: None))
    found = identifier.reconstruct(identifier.identify(corpus).codes).cpu()
    return float((found - features).square().sum(-1).mean())


def test_the_quantizer_learns_on_the_device(device, tmp_path):
    plain, trained = (quantizer(device, tmp_path / str(epochs), epochs) for epochs in (0, 40))
    on_cpu = quantizer(torch.device("cpu"), tmp_path / "cpu", 40)
    assert trained < plain
    assert trained == pytest.approx(on_cpu, rel=0.2)  # random states of the two devices differ
