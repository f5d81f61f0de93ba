"""Download of the public data sets: one table of sources, resumable transfers, checked archives."""
