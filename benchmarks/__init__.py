"""One file a question; each prints JSON lines."""
