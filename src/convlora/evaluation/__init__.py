"""Score a run on held-out images, compare runs, and show both in a report with pictures."""
