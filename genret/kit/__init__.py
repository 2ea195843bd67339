"""Public helpers that the core and components share: images, files, encoding, the training loop."""
