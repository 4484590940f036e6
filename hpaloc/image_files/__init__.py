"""The images of files: the one of a file, and single planes of a file that has many."""
