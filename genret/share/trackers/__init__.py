"""Trackers of trainings: TensorBoard, trackio, Weights & Biases, MLflow, and those of plugins."""
