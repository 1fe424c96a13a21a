"""One file a family: ψ, its closed forms where they exist, and the usual parameters."""
