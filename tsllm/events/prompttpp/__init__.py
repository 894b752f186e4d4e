"""PromptTPP: a point process whose prompts remember each slice of a stream."""
