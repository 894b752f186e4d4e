"""Forecasts of long tables: one call from a table of series to a table of forecasts."""
