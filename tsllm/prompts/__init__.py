"""Texts for a language model: prompts for windows, dates and segments in words."""
