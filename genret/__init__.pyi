"""The public names, for type checkers and for `genret/__init__.py`, which imports each on first use."""

from .api import Backbone as Backbone
from .api import Candidates as Candidates
from .api import CaptionedImages as CaptionedImages
from .api import Component as Component
from .api import Config as Config
from .api import Corpus as Corpus
from .api import Dataset as Dataset
from .api import Encoder as Encoder
from .api import Evaluator as Evaluator
from .api import FitContext as FitContext
from .api import GeneratorBatch as GeneratorBatch
from .api import Identifier as Identifier
from .api import Identifiers as Identifiers
from .api import LoopOptions as LoopOptions
from .api import Loss as Loss
from .api import LossConfig as LossConfig
from .api import Pairs as Pairs
from .api import Query as Query
from .api import QueryBatch as QueryBatch
from .api import Record as Record
from .api import Reranker as Reranker
from .api import RerankerConfig as RerankerConfig
from .api import Retriever as Retriever
from .api import SoftTarget as SoftTarget
from .api import TokenizerBatch as TokenizerBatch
from .api import Vokens as Vokens
from .errors import BadImage as BadImage
from .errors import GenretError as GenretError
from .errors import RecipeError as RecipeError
from .errors import UnknownName as UnknownName
from .errors import UsageError as UsageError
from .plugin.hookspecs import hookimpl as hookimpl
from .run import Run as Run
from .search.catalog import CatalogRetriever as CatalogRetriever
from .search.ranking import Ranked as Ranked
from .serve.client import connect as connect
from .share.load import load as load

__version__: str
