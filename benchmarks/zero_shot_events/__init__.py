"""Synthetic training and measurement of forecasts of events without training."""
