"""The error of an estimator that has not been fitted."""

from echograd import EchogradError


class NotFittedError(EchogradError, ValueError, AttributeError):
    """An estimator was used before `fit`. It has the bases of scikit-learn's error of this name.

    Example:
        ```python
        try:
            eg.SequenceClassifier().predict(X)
        except eg.workbench.estimators.NotFittedError as error:
            print(error)
        ```
    """
