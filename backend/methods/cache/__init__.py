"""Fewer bits for keys and values."""
