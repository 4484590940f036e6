"""What the network learned, and can learn from a few cells: layers, units, maps and few-shot transfer."""
