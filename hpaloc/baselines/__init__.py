"""Predictors that a network has to beat: regressions on simple measurements, and on a network with random weights."""
