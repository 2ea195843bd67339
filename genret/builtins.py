"""What ships with genret, registered by the same hooks as any plugin's components."""

from __future__ import annotations

from genret.hookspecs import Register, hookimpl


@hookimpl
def register_datasets(register: Register) -> None:
    register("karpathy", "genret.data.karpathy:KarpathyDataset")
    register("folder", "genret.data.folder:FolderDataset")
    register("webdataset", "genret.data.webdataset:WebDataset")
    register("huggingface", "genret.data.huggingface:HuggingFaceDataset")


@hookimpl
def register_encoders(register: Register) -> None:
    register("paired", "genret.encoders.paired:PairedEncoder")
    register("open-clip", "genret.encoders.open_clip:OpenCLIPEncoder")
    register("clip", "genret.encoders.hf_clip:CLIPEncoder")


@hookimpl
def register_identifiers(register: Register) -> None:
    register("rq", "genret.identifiers.rq:RQIdentifier")
    register("residual-kmeans", "genret.identifiers.residual_kmeans:ResidualKMeansIdentifier")
    register("structured", "genret.identifiers.structured:StructuredIdentifier")
    register("numeric", "genret.identifiers.numeric:NumericIdentifier")
    register("string", "genret.identifiers.string:StringIdentifier")
    register("semantic", "genret.identifiers.semantic:SemanticIdentifier")
    register("atomic", "genret.identifiers.atomic:AtomicIdentifier")


@hookimpl
def register_backbones(register: Register) -> None:
    register("t5", "genret.backbones.t5:T5Backbone")
    register("llama", "genret.backbones.llama:LlamaBackbone")
    register("t5-base", "genret.backbones.presets:T5Base")
    register("t5-large", "genret.backbones.presets:T5Large")
    register("t5-xl", "genret.backbones.presets:T5XL")
    register("llama-7b-lora", "genret.backbones.presets:Llama7BLora")


@hookimpl
def register_losses(register: Register) -> None:
    register("recon", "genret.losses.tokenizer:ReconLoss")
    register("commit", "genret.losses.tokenizer:CommitLoss")
    register("align", "genret.losses.tokenizer:AlignLoss")
    register("align-contrastive", "genret.losses.tokenizer:ContrastiveAlignLoss")
    register("diversity", "genret.losses.tokenizer:DiversityLoss")
    register("token", "genret.losses.generator:TokenLoss")
    register("rank", "genret.losses.generator:RankLoss")
    register("distill", "genret.losses.generator:DistillLoss")
    register("memorise", "genret.losses.generator:MemoriseLoss")
    register("reverse", "genret.losses.generator:ReverseLoss")


@hookimpl
def register_rerankers(register: Register) -> None:
    register("dense", "genret.rerank.dense:DenseReranker")
    register("itm", "genret.rerank.itm:ITMReranker")
    register("reverse", "genret.rerank.reverse:ReverseReranker")
