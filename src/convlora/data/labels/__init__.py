"""What the values of masks mean: classes, their names and colours."""
