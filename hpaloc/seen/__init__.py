"""What trained a network, and what of a collection it has seen: no score of that can be believed."""
