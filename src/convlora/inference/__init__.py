"""Masks for new images, from a run folder or its adapter."""
