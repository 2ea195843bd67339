"""Whatever finds images by words."""
