"""Decoders of the next event: from a state to an intensity or a density."""
