"""What a machine can train: a short calibration, a prediction from it, and the command to run."""
