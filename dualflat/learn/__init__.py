"""What one step computes: losses, update rules, models, tasks."""
