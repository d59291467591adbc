"""Weights from latents: order, objective, step, checkpoints. Knows no corpus, no stage, no Ray."""
