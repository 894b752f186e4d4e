"""Training and evaluation of the zero-shot weights, on synthetic series only."""
