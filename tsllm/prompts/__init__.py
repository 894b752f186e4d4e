"""Texts for a language model: prompts that describe a window, dates and segments in words."""
