"""Codebook diagnostics between the stages of training, and code usage among the images of a split."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from genret.api import Corpus, Evaluator, Identifier, Identifiers, Ui
from genret.evaluate.evaluation import Evaluated
from genret.kit.files import write_json
from genret.lab.codebooks.gate import Gate, gate_table, quality_gate
from genret.toolbox.codes.usage import usage_statistics
from genret.train.protocols import SENTENCES

if TYPE_CHECKING:
    from genret.run import Run

FILE = "quality.json"


class CodebookEvaluator(Evaluator):
    """Code usage of each level; in training, also checks of the identifiers before the generator is trained."""

    def after_identifiers(self, run: Path, identifier: Identifier, named: Identifiers, dev: Corpus, ui: Ui) -> None:
        gate = None if named.codes is None else gate_of(identifier, named.codes, dev)
        if gate is None:
            return
        bare = (run / SENTENCES).exists()  # then the nearest image counts as what a sentence is about
        ui.table(gate_table(gate, "agreement with raw vectors at 1/5/10" if bare else "R@1/5/10"))
        exact = (
            bare and gate.num_collapsed
        )  # codes of their own for few images: the deep levels have nothing left to say
        if exact:
            ui.note(f"{exact} levels hardly use their codes: ordinary where pictures are few, and no fault")
        for warning in gate.warnings()[exact:]:
            ui.warn(warning)
        write_json(run / FILE, gate.as_json())

    def evaluate(self, run: Run, found: Evaluated, ui: Ui) -> dict[str, Any] | None:
        sizes = () if run.components.identifier is None else run.components.identifier.vokens.sizes
        codes = found.retriever.catalog.identifiers_of(found.asked.keys).codes
        if codes is None or not len(codes) or not sizes:  # identifiers of text, or images without identifiers
            return None
        levels = usage_statistics(torch.from_numpy(codes).long(), sizes)
        return {
            "codebook_size": list(sizes),
            "usage": [100.0 * level.usage for level in levels],
            "entropy": [level.entropy for level in levels],
            "perplexity": [level.perplexity for level in levels],
        }


def gate_of(identifier: Identifier, codes: torch.Tensor, dev: Corpus) -> Gate | None:
    """Usage and uniqueness over the training images (R, M), retrieval over the development images."""
    if dev.text_features is None or dev.owners is None or identifier.new_images != "content_based":
        return None
    dev_codes = identifier.identify(dev.without_captions()).codes
    if dev_codes is None or len(dev_codes) != len(dev.features):  # several identifiers: no single reconstruction
        return None
    if (reconstruction := identifier.reconstruct(dev_codes)) is None:
        return None
    sizes, learned = identifier.vokens.sizes, identifier.vokens.learned
    return quality_gate(codes, sizes, dev.text_features, dev.features, reconstruction, dev.owners, learned)
