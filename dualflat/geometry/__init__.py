"""What is true of a dually flat space. Knows JAX and numpy, and nothing of who computes."""
