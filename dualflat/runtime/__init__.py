"""Who computes, when, and what survives a crash."""
