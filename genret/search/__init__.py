"""Retrievers and what they share: everything that finds images by text queries."""
