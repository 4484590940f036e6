"""What a run made, in formats that other programs read: one room per format."""
