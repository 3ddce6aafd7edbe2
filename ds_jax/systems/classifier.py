"""What a fitted classifier is, whichever library has fitted it."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
import skops.io
from sklearn.pipeline import Pipeline


@dataclasses.dataclass(frozen=True)
class Classifier:
    """A fitted classifier, which scikit-learn made unless its kind says otherwise.

    Attributes:
        classes: int [k], the indices of the classes that training rows have, ascending.
        fitted: The object that the library fitted.
        settings: The values that the fit has chosen: "C" and "temperature", or nothing.
        tried: The choices: for each cost "C" and the "uar" over the inner folds.
        stopped: The number of fits, those of inner folds included, that LIBSVM stopped after
            `STEPS` steps, before they had converged.
    """

    classes: np.ndarray
    fitted: Any
    settings: dict[str, float] = dataclasses.field(default_factory=dict)
    tried: list[dict[str, float]] = dataclasses.field(default_factory=list)
    stopped: int = 0

    library, file = sklearn, "model.skops"

    def probabilities(self, inputs: np.ndarray, count: int) -> np.ndarray:
        """Returns the probabilities of the classes.

        Args:
            inputs: float32 [n, d], a vector of features each.
            count: The number of all classes.

        Returns:
            float64 [n, count], rows sum to one; 0 for classes that training did not have.

        Raises:
            ValueError: A number is not finite, or d is not that of the training.
        """
        check_finite(inputs)
        scores = self._scores(inputs)
        probabilities = np.zeros((len(inputs), count))
        probabilities[:, self.classes] = scores / scores.sum(1, keepdims=True)
        return probabilities

    def dump(self) -> bytes:
        """Returns the content of the model's file."""
        return skops.io.dumps(self.fitted)

    @staticmethod
    def parse(path: Path, content: bytes, version: str) -> Pipeline | dict:
        """Reads what `dump` returned, by a version of the library; nothing is unpickled.

        Raises:
            ValueError: The content is damaged, or not to be trusted, or of another version.
        """
        if version != sklearn.__version__:
            raise ValueError(
                f"{path} was written by scikit-learn {version}, and this is {sklearn.__version__}: "
                f"install scikit-learn=={version}, or train again"
            )
        if untrusted := skops.io.get_untrusted_types(data=content):
            names = ", ".join(untrusted)
            raise ValueError(f"{path} holds {names}, which is not trusted: train again")
        fitted = skops.io.loads(content)
        if not isinstance(fitted, Pipeline | dict):
            raise ValueError(f"damaged: {path} holds no classifier: train again")
        return fitted


def check_finite(inputs: np.ndarray) -> None:
    """Raises ValueError if a number is not finite."""
    wrong = np.flatnonzero(~np.isfinite(inputs).all(1))
    if len(wrong):
        raise ValueError(
            f"the features of row {wrong[0]} hold a NaN or an infinity: "
            "leave the recording out, or compute them again"
        )


def classes_of(labels: np.ndarray) -> np.ndarray:
    """Returns the classes that labels have, ascending; raises ValueError if there is one alone."""
    classes = np.unique(labels)
    if len(classes) < 2:
        raise ValueError(f"training needs two classes or more, and has {len(classes) or 'no rows'}")
    return classes
