"""Where a result comes from: a manifest beside every output, and the way back from a submission to its models."""
