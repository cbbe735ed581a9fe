"""Speed and evidence, measured; results as JSON in `results/`."""
