"""Mixtures of locations, with fractions that are shares of the protein's light."""
