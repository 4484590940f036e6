"""Figures, each as SVG and PNG, in one room per rule, so that a changed figure redraws only those of its room.

Every function that draws takes tables or arrays and a path without suffix. Figures are drawn without pyplot: calls
share no state, and the bytes of a figure depend only on its data.
"""
