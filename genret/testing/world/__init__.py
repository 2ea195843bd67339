"""What the kit checks components with: a small world, a training in miniature, and the words it says faults in."""
