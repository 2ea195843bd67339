"""Public helpers for components: saving, the training loop, collisions, splits, images, weights by name."""
