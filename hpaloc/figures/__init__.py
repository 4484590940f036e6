"""Figures, each as SVG and PNG, in rooms of their own, so that a changed figure draws again only those beside it.

Every function that draws takes tables or arrays and a path without suffix. Figures are drawn without pyplot: nothing is
left behind between calls, and the bytes of a figure depend on its data alone.
"""
