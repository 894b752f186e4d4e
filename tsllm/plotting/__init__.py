"""Plots of forecasts, ablations and anchors."""
