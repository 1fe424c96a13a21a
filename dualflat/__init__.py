"""Dually flat geometry as functions of a convex potential, and training that uses it."""
