"""How a run is asked for, and what is checked before it starts."""
