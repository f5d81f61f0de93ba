"""What the box head of a trained model is trained on: valid samples of each category, and missing annotations."""
