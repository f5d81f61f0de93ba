"""A run in a FiftyOne database."""
