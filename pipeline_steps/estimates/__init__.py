"""What a run of a recipe takes before anything has run: FLOPs, GPU memory, GPU hours, disk."""
