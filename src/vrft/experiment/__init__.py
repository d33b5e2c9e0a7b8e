"""The ablation: every combination of the augmentations beside control arms, by seeds, in one command."""
