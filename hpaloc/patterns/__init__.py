"""File patterns, and the files in folders that match them."""
