"""Finite scalar quantization as an identifier scheme of genret."""
