"""What the jobs of all rules ask of a machine."""


def grows(megabytes, factor=2):
    """Return a resource function: ``megabytes``, multiplied by ``factor`` at each further attempt."""

    def of_attempt(wildcards, attempt):
        return megabytes * factor ** (attempt - 1)

    return of_attempt
