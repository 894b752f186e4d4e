"""Evaluation of event forecasters: next events, goodness of fit, streams, ablations."""
