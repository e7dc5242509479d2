"""What is raised for files that cannot be read."""

from echograd import EchogradError


class DataError(EchogradError, ValueError):
    """A file is damaged, cut short, or not in the format that it should have. The message names the file.

    Example:
        ```python
        try:
            eg.data.read_arff("set.arff")
        except eg.data.DataError as error:
            print(error)
        ```
    """
