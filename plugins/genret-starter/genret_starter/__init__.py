"""Emoji as a data set, and pretrained weights out of packages: all that genret needs to start without a model hub."""
