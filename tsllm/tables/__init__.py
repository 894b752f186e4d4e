"""Forecasts of long tables, from a table of series to a table of forecasts."""
