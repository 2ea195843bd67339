"""Retrievers: find the images for a text query."""
