"""Fine-tuning: settings, methods, the trainer, checkpoints and resume."""
