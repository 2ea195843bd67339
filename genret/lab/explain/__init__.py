"""Why a search found what it found: codebooks by example, two searches side by side, explanations as tables."""
