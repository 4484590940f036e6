"""Simulated confocal fields of the Human Protein Atlas kind, with truth masks and truth labels per cell.

A field is made in this order: cells and nuclei are laid out on a canvas larger than the picture (``layout``,
``scene``); organelles are drawn in the reference colours red, blue and yellow, and the protein of interest in green, in
the pattern of the field's labels (``patterns``, ``protein``); and a camera with blur, uneven light and noise takes the
picture (``camera``). ``field`` makes one field, ``shard`` writes the fields of a manifest.

The same seed gives the same bytes on any machine: geometry is computed in float64 and rounded to whole pixels or
sixteenths, textures and blur use OpenCV's bit-exact integer filters, and everything per pixel consists of additions,
products, quotients and square roots, which IEEE 754 rounds in the same way everywhere.
"""
