"""Errors of data: files that cannot be read, and indices of missing cases."""

from echograd import ArgumentError, EchogradError


class DataError(EchogradError, ValueError):
    """A file is damaged, truncated, or in a format that is not supported. The message names the file.

    Example:
        ```python
        try:
            eg.workbench.data.read_arff("set.arff")
        except eg.workbench.data.DataError as error:
            print(error)
        ```
    """


class CaseIndexError(ArgumentError, IndexError):
    """An index is not that of a case or batch. It is an `IndexError`, as for any sequence."""
