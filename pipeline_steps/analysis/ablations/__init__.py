"""Settings compared over seeds: means and spread, differences of runs of equal seed, and the loss's mechanism."""
