"""The pixels of an image: strips of rows, and what detectors and stitchers do."""
