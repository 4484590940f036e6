"""The training of the cell classifier."""
