"""Detections between the steps: the table format, merging of members, re-scoring, the submission file."""
