"""Training loop: schedule, optimizer, processes, exact resume, metrics."""
