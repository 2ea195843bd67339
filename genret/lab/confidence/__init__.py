"""Confidence of a search."""
