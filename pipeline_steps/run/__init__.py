"""What becomes of a recipe: where data and results lie, what decides a stage, where a result comes from."""
