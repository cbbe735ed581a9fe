"""`convlora check`: everything that can be said about a data set before it is trained on, with pictures."""
