"""Training: stages, their artifacts, and the two objectives."""
