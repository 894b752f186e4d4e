"""Saving and loading of fitted models: safetensors, JSON and Parquet, never pickle."""
