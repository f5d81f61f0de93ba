"""The detector: losses (pure torch), heads, backbones, weights, and one function that builds any model of a recipe."""
