"""Aaren: attention as a recurrent network, and the forecaster made of it."""
