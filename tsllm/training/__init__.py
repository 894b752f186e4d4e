"""The training loop that every method uses: windows, settings, callbacks, checkpoints."""
