"""genret: generative text-to-image retrieval."""
