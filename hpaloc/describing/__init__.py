"""What a folder of images is, by the names of its files and a look into a few, and a configuration for it."""
