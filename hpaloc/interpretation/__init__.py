"""What the network learned, and what it can learn from a few cells: layers, units, maps and few-shot transfer."""
