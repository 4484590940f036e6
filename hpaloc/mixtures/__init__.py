"""Mixtures of locations, whose fractions are shares of the protein's light."""
