"""The network: its architecture, its folder, and what comes out of it."""
