"""Which images train, validate and test, and how often they are seen."""
