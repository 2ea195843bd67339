"""How long searches take."""
