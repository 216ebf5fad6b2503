"""Whole rows, columns or layers removed."""
