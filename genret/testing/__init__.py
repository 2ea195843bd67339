"""The conformance kit for the tests of plugins: one function per kind of component.

    from genret.testing import check_identifier
    from my_package import MyIdentifier

    def test_the_contract():
        check_identifier(MyIdentifier, num_levels=3)

The options are those of a recipe. A function returns nothing if the contract of `genret.api` is kept; otherwise it
raises `ContractError`, an AssertionError that says what was observed and what to change. Data are small, synthetic and
in memory; no function needs a network or a GPU (if there is one, it is tested too), and each takes seconds.
"""

from genret.testing.backbone import check_backbone
from genret.testing.config import check_config
from genret.testing.dataset import check_dataset
from genret.testing.encoder import check_encoder
from genret.testing.evaluator import check_evaluator
from genret.testing.identifier import check_identifier
from genret.testing.loss import check_loss
from genret.testing.plugin import check_plugin, check_recipe
from genret.testing.reranker import check_reranker
from genret.testing.retriever import check_retriever
from genret.testing.world.expect import ContractError
from genret.testing.world.run import train_run

__all__ = [
    "ContractError",
    "check_backbone",
    "check_config",
    "check_dataset",
    "check_encoder",
    "check_evaluator",
    "check_identifier",
    "check_loss",
    "check_plugin",
    "check_recipe",
    "check_reranker",
    "check_retriever",
    "train_run",
]
