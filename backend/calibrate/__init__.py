"""Calibration text and the one walk that collects what methods need to know of the data."""

BATCH_TOKENS = 4096
"""Tokens that pass a block together, where windows must pass apart."""
AT_ONCE = 1 << 28
"""Numbers in the widest activation of all windows up to which they all pass it together."""
EACH = 64
"""Windows of whose losses gradients are kept one by one, at most."""
TOGETHER = 4
"""Windows of a batch from which a run of blocks learns, if so many divide them all."""
MOST_SAMPLES = 512
"""Inputs of a linear kept at most, evenly spaced; half of them at least where so many came."""
