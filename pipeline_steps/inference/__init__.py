"""Test-time inference: detection selection, multi-scale boxes and masks, run-length encoding, images and shards."""
