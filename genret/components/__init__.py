"""The components that ship with genret, registered by the same hooks as those of any plugin."""

from __future__ import annotations

from genret import hookimpl
from genret.plugin.hookspecs import Register, RegisterWeights


@hookimpl
def register_datasets(register: Register) -> None:
    register("karpathy", "genret.components.data.karpathy:KarpathyDataset")
    register("folder", "genret.components.data.folder:FolderDataset")
    register("webdataset", "genret.components.data.webdataset:WebDataset")
    register("huggingface", "genret.components.data.huggingface:HuggingFaceDataset")
    register("photos", "genret.components.data.photos:PhotosDataset")
    register("sentences", "genret.components.data.sentences:SentencesDataset")
    register("words", "genret.components.data.words:WordsDataset")


@hookimpl
def register_encoders(register: Register) -> None:
    register("paired", "genret.components.encoders.paired:PairedEncoder")
    register("two-space", "genret.components.encoders.second.two_space:TwoSpaceEncoder")
    register("open-clip", "genret.components.encoders.open_clip:OpenCLIPEncoder")
    register("clip", "genret.components.encoders.hf_clip:CLIPEncoder")
    register("run", "genret.components.encoders.earlier.run:RunEncoder")


@hookimpl
def register_weights(register: RegisterWeights) -> None:
    register("genret:runs", "genret.components.encoders.earlier.run:runs_folder")


@hookimpl
def register_identifiers(register: Register) -> None:
    register("rq", "genret.components.identifiers.rq:RQIdentifier")
    register("residual-kmeans", "genret.components.identifiers.residual_kmeans:ResidualKMeansIdentifier")
    register("two-space", "genret.components.identifiers.two_space:TwoSpaceIdentifier")
    register("structured", "genret.components.identifiers.structured:StructuredIdentifier")
    register("numeric", "genret.components.identifiers.numeric:NumericIdentifier")
    register("string", "genret.components.identifiers.string:StringIdentifier")
    register("semantic", "genret.components.identifiers.semantic:SemanticIdentifier")
    register("atomic", "genret.components.identifiers.atomic:AtomicIdentifier")


@hookimpl
def register_backbones(register: Register) -> None:
    register("t5", "genret.components.backbones.t5:T5Backbone")
    register("llama", "genret.components.backbones.llama:LlamaBackbone")
    register("t5-base", "genret.components.backbones.presets:T5Base")
    register("t5-large", "genret.components.backbones.presets:T5Large")
    register("t5-xl", "genret.components.backbones.presets:T5XL")
    register("llama-7b-lora", "genret.components.backbones.presets:Llama7BLora")


@hookimpl
def register_losses(register: Register) -> None:
    register("recon", "genret.components.losses.tokenizer:ReconLoss")
    register("commit", "genret.components.losses.tokenizer:CommitLoss")
    register("align", "genret.components.losses.tokenizer:AlignLoss")
    register("align-contrastive", "genret.components.losses.tokenizer:ContrastiveAlignLoss")
    register("diversity", "genret.components.losses.tokenizer:DiversityLoss")
    register("token", "genret.components.losses.generator:TokenLoss")
    register("rank", "genret.components.losses.generator:RankLoss")
    register("distill", "genret.components.losses.generator:DistillLoss")
    register("memorize", "genret.components.losses.generator:MemorizeLoss")
    register("reverse", "genret.components.losses.generator:ReverseLoss")


@hookimpl
def register_retrievers(register: Register) -> None:
    register("generative", "genret.components.retrievers.generative:GenerativeRetriever")
    register("two-tower", "genret.components.retrievers.two_tower:TwoTowerRetriever")


@hookimpl
def register_rerankers(register: Register) -> None:
    register("dense", "genret.components.rerankers.dense:DenseReranker")
    register("itm", "genret.components.rerankers.itm:ITMReranker")
    register("reverse", "genret.components.rerankers.reverse:ReverseReranker")
