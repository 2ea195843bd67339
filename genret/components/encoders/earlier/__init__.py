"""Encoders that are taken over from what was trained before."""
