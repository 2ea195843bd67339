"""Emoji as a data set, and pretrained weights from packages: genret runs without a model hub."""
