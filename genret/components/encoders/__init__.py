"""Frozen towers that turn images and texts into vectors, heads that join them, and the cache of what towers say."""
