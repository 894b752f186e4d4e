"""The model of events without training: estimates of several processes, and a network over them."""
