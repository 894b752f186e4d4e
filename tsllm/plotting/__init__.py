"""Plots; they need the extra ``tsllm[plot]``."""
