"""The cell browser: pages that open from disk, with every shown cell, its field, its activation map and its scores."""
