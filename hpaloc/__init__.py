"""Subcellular location of a stained protein in every cell of Human Protein Atlas style images."""

__version__ = "0.2.0"
