"""The convex functions everybody uses, each with what it knows: potentials that are no families."""
