"""What training knows of the searched images."""
