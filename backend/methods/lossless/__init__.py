"""The same numbers in fewer bits."""
