"""Hot paths measured beside what people use today: ``python -m tests.benchmarks [name ...]``."""
