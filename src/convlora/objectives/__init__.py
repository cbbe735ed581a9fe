"""Losses and metrics: pure functions on tensors, no files, no models."""
