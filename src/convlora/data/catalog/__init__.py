"""The sets of the Conv-LoRA paper: where they are, how they are fetched, and how they are laid out for training."""
