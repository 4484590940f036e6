"""The public atlas: its XML, the fields that it lists, the sheets of those that are asked for."""
