"""Codebook diagnostics: how evenly codes are used, and how well they preserve image vectors."""
