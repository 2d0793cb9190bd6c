"""What is observed of the mesh: spans and traffic, taken in, kept for a while, told."""
