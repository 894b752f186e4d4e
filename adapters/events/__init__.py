"""Point processes: batches of events, encoders, decoders, prompts."""
