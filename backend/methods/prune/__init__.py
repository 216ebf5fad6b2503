"""Weights set to zero and left out."""
