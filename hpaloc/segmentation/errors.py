"""The error that stops a segment job."""


class SetupError(RuntimeError):
    """An error of the installation or the settings, not of a field: the whole job has to stop."""
