"""How jobs run on clusters and their GPUs: launching, job arrays, the queue."""
