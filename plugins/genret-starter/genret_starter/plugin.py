"""Registers the data set and the weights. Targets are imported when a recipe names them."""

import genret


@genret.hookimpl
def register_datasets(register):
    register("emoji", "genret_starter.emoji:EmojiDataset")


@genret.hookimpl
def register_weights(register):
    register("starter:efficientnet-lite0", "genret_starter.weights:efficientnet_lite0")
    register("starter:efficientnet-lite1", "genret_starter.weights:efficientnet_lite1")
    register("starter:efficientnet-lite2", "genret_starter.weights:efficientnet_lite2")
    register("starter:minilm", "genret_starter.weights:minilm")
    register("starter:mpnet", "genret_starter.weights:mpnet")
    register("starter:flan-t5-small", "genret_starter.weights:flan_t5_small")
