"""Residual quantization and k-means in plain torch."""
