"""The invented world: every text the embedded model learns from or is judged by.

Pure Python, deterministic by seed, and every question comes with its exact answer. Nothing here
knows about tokens, tensors or files of the model.
"""
