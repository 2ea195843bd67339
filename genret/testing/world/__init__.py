"""The kit's tools: a small synthetic world, miniature trainings, and error messages."""
