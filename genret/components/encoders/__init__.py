"""Towers that encode images and texts, heads that map both to a shared space, and fine-tuning."""
