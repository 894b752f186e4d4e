"""S²IP-LLM: the model, its semantic anchors, its decomposition of a series."""
