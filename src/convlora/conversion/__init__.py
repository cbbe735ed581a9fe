"""Masks of class ids out into the formats of annotation tools; one file a format."""
