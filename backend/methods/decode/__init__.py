"""More than one token a step, the same output."""
