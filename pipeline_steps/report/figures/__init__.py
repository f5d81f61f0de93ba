"""Figures of a run. Each is drawn from what is there; what cannot be drawn says which input is missing."""
