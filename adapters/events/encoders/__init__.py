"""Encoders of event histories: from a batch of events to one state per event."""
