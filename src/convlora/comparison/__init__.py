"""Studies: data sets × models × methods × learning rates × seeds, run once each and compared fairly."""
