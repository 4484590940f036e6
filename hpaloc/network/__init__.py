"""The network: its architecture, its folder and its outputs."""
