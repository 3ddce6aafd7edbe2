"""Classifiers that are fitted at once: linear regression, support vectors, boosted trees."""

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import scipy.optimize
import scipy.special
import sklearn
import skops.io
import threadpoolctl
import xgboost
from sklearn import svm
from sklearn.exceptions import ConvergenceWarning
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import LinearRegression
from sklearn.metrics.pairwise import pairwise_kernels
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.class_weight import compute_sample_weight

from ds_jax.evaluation.metrics import confusion, uar
from ds_jax.runtime.errors import ConfigError
from ds_jax.training import checkpoints

# Separable features need some 2,000 steps of LIBSVM, hard ones 500,000. Unscaled features with a
# linear kernel could go on for hours: they stop here, and `Classifier.stopped` counts them.
STEPS = 1_000_000
# Below .1, one vote more than the others would be as good as certainty.
TEMPERATURES = (0.1, 100.0)

InnerFold = tuple[np.ndarray, np.ndarray]  # int rows that are fitted, int rows that are held out


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
        _check_finite(inputs)
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


class MLR(Classifier):
    """Multivariate linear regression: least squares on one-hot targets, of standardised inputs."""

    @classmethod
    def fit(cls, model, inputs, labels, inner, seed) -> "MLR":
        """Fits the rows; `model`, `inner` and `seed` are not used."""
        classes = _classes(labels)
        targets = (labels[:, None] == classes).astype(float)
        # Double precision: features such as a variance and its root are nearly collinear.
        pipeline = make_pipeline(StandardScaler(), LinearRegression())
        return cls(classes, pipeline.fit(inputs.astype(np.float64), targets))

    def _scores(self, inputs):
        """Returns the outputs, which sum to one, with those below zero cut off."""
        return np.maximum(self.fitted.predict(inputs.astype(np.float64)), 0)


class XGBoost(Classifier):
    """Gradient-boosted trees, in XGBoost's JSON, which later versions can read too."""

    library, file = xgboost, "model.json"

    @classmethod
    def fit(cls, model, inputs, labels, inner, seed) -> "XGBoost":
        """Fits the rows; `inner` is not used."""
        classes = _classes(labels)
        trees = xgboost.XGBClassifier(
            n_estimators=model["trees"],
            max_depth=model["depth"],
            learning_rate=model["learning_rate"],
            colsample_bytree=model["column_share"],
            max_bin=model["bins"],
            tree_method="hist",
            random_state=seed,
            # Threads add up gradients in another order each time, and with few rows save no time.
            n_jobs=1,
        )
        return cls(classes, trees.fit(inputs, np.searchsorted(classes, labels)))

    def _scores(self, inputs):
        return self.fitted.predict_proba(inputs).astype(np.float64)

    def dump(self) -> bytes:
        """Returns the content of the model's file."""
        return bytes(self.fitted.get_booster().save_raw("json"))

    @staticmethod
    def parse(path: Path, content: bytes, version: str) -> xgboost.XGBClassifier:
        """Reads what `dump` returned, by any version."""
        fitted = xgboost.XGBClassifier(n_jobs=1)
        fitted.load_model(bytearray(content))
        return fitted


class SVC(Classifier):
    """Support vectors of LIBSVM through scikit-learn, with calibrated probabilities.

    Of `costs` the one with the highest UAR over all held-out rows of the inner folds is taken, the
    smallest of equals. Then the temperature is taken at which those held-out decisions have the
    lowest log loss (Guo et al. 2017); held-out labels that an inner fold does not train are errors
    for the UAR, and are left out of the log loss. A single cost without inner folds has the
    temperature 1.
    """

    @classmethod
    def fit(cls, model, inputs, labels, inner, seed) -> "SVC":
        """Fits the rows at the cost that the inner folds choose; `seed` is not used."""
        classes, costs = _classes(labels), sorted(set(model["costs"]))
        if len(costs) > 1 and not inner:
            raise ConfigError("model.costs", costs, "a single cost: there are no inner folds")
        settings, tried, stopped = {"C": costs[0], "temperature": 1.0}, [], 0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # counted instead
            if inner:
                settings, tried, stopped = cls._choose(model, costs, inputs, labels, inner)
            space = _space(model, inputs)
            machine = cls._fit_kernel(settings["C"], _kernel(space, inputs), labels)
        stopped += cls._is_stopped(machine)
        return cls(classes, space | {cls.machine: machine}, settings, tried, stopped)

    machine = "svc"  # what the fitted machine is called in the model's file

    @staticmethod
    def _fit_kernel(cost: float, kernel: np.ndarray, labels: np.ndarray) -> svm.SVC:
        # break_ties: it decides for the highest decision value, which is the most probable label.
        svc = svm.SVC(C=cost, kernel="precomputed", break_ties=True, max_iter=STEPS)
        return svc.fit(kernel, labels)

    @staticmethod
    def _is_stopped(svc: svm.SVC) -> bool:
        return svc.fit_status_ != 0

    @staticmethod
    def _decide(svc: svm.SVC, kernel: np.ndarray) -> np.ndarray:
        """Returns float64 [n, k]: a vote for each class beaten, and less than half for how clearly.

        For two classes scikit-learn has a single value, positive for the second.
        """
        decisions = svc.decision_function(kernel)
        return decisions if decisions.ndim == 2 else np.stack([-decisions, decisions], 1) / 2

    @classmethod
    def _choose(cls, model, costs, inputs, labels, inner):
        """Returns the settings, the UAR of each cost, and how many fits were stopped."""
        # LIBSVM and BLAS run outside Python's lock, so threads do, and need no copies of the
        # inputs. The threads of BLAS would get in their way and add up in another order.
        parallel = joblib.Parallel(joblib.cpu_count(), prefer="threads")
        folds = (
            joblib.delayed(cls._held_out)(model, costs, inputs, labels, *fold) for fold in inner
        )
        with threadpoolctl.threadpool_limits(1):
            parts, stopped = zip(*parallel(folds), strict=True)
        decisions = np.concatenate(parts, axis=1)
        truth = labels[np.concatenate([held_out for _, held_out in inner])]
        # Rounded, since equal scores may differ by their last digit.
        count = decisions.shape[2]
        scores = [round(float(uar(confusion(truth, x.argmax(1), count))), 12) for x in decisions]
        best = int(np.argmax(scores))
        settings = {"C": costs[best], "temperature": _temperature(decisions[best], truth)}
        tried = [{"C": cost, "uar": score} for cost, score in zip(costs, scores, strict=True)]
        return settings, tried, sum(stopped)

    @classmethod
    def _held_out(cls, model, costs, inputs, labels, train, held_out) -> tuple[np.ndarray, int]:
        """Fits an inner fold at each cost; returns decisions, and how many fits were stopped.

        Decisions are float64 [costs, held-out rows, classes], -inf for classes not trained.
        """
        classes = _classes(labels[train])
        space = _space(model, inputs[train])
        within, across = _kernel(space, inputs[train]), _kernel(space, inputs[held_out])
        decisions = np.full((len(costs), len(held_out), labels.max() + 1), -np.inf)
        stopped = 0
        for cost, rows in zip(costs, decisions, strict=True):
            machine = cls._fit_kernel(cost, within, labels[train])
            rows[:, classes] = cls._decide(machine, across)
            stopped += cls._is_stopped(machine)
        return decisions, stopped

    def _scores(self, inputs):
        """Returns the softmax of the decision values, whose order a temperature leaves alone."""
        decisions = self._decide(self.fitted[self.machine], _kernel(self.fitted, inputs))
        return scipy.special.softmax(decisions / self.settings["temperature"], axis=1)


class Ridge(SVC):
    """Kernel ridge regression on one-hot targets, whose classes weigh alike in the loss.

    Its inverse penalty C, in units of the kernel's mean diagonal, and its temperature are chosen as
    those of `SVC`.
    """

    machine = "ridge"

    @staticmethod
    def _fit_kernel(cost: float, kernel: np.ndarray, labels: np.ndarray) -> KernelRidge:
        weights = compute_sample_weight("balanced", labels)
        # Balanced classes have a mean of one over their number, which stands for an intercept.
        classes = _classes(labels)
        targets = (labels[:, None] == classes) - 1 / len(classes)
        penalty = float(np.trace(kernel, dtype=np.float64)) / len(kernel) / cost
        ridge = KernelRidge(alpha=penalty, kernel="precomputed")
        return ridge.fit(kernel.astype(np.float64), targets, weights)

    @staticmethod
    def _is_stopped(ridge: KernelRidge) -> bool:
        return False  # solved in closed form

    @staticmethod
    def _decide(ridge: KernelRidge, kernel: np.ndarray) -> np.ndarray:
        """Returns float64 [n, k]."""
        return ridge.predict(kernel.astype(np.float64))


def fit(
    kind: type[Classifier],
    model: Mapping,
    inputs: np.ndarray,
    labels: np.ndarray,
    inner: Sequence[InnerFold],
    seed: int,
) -> Classifier:
    """Fits a classifier on all rows given.

    Args:
        kind: `MLR`, `SVC`, `Ridge` or `XGBoost`.
        model: The fields of `config.model`, which `base.check` has passed.
        inputs: float32 [n, d], training rows only.
        labels: int [n], indices of classes.
        inner: For `SVC` and `Ridge`, rows of `inputs` that are fitted and rows that are held out.
        seed: The seed by which XGBoost draws features; nothing else is random.

    Raises:
        ConfigError: There are several costs, and no inner folds.
        ValueError: A number is not finite, or training has a single label.
    """
    _check_finite(inputs)
    return kind.fit(model, inputs, labels, inner, seed)


def save(
    directory: Path,
    classifier: Classifier,
    config: Mapping,
    fold: str = "",
    made: Mapping | None = None,
) -> None:
    """Writes a classifier's file and, last, its card.

    Args:
        directory: The folder, whose earlier model is replaced.
        classifier: The classifier.
        config: The run's config, as JSON.
        fold, made: As `checkpoints.save` describes them.
    """
    card = {
        "config": config,
        "fold": fold,
        "trained": [config["classes"][index] for index in classifier.classes],
        "settings": classifier.settings,
        "tried": classifier.tried,
        "version": classifier.library.__version__,
        "made": made or {},
    }
    checkpoints.save(directory, classifier.file, classifier.dump(), card)


def load(kind: type[Classifier], directory: Path) -> Classifier:
    """Reads a classifier that `save` has written.

    Raises:
        FileNotFoundError: There is no classifier.
        ValueError: It is damaged or of other labels, or as `Classifier.parse`.
    """
    card = checkpoints.read_card(directory, "settings", "tried", "version")
    content = checkpoints.read_model(directory, kind.file)
    fitted = kind.parse(directory / kind.file, content, card["version"])
    classes = np.asarray([card["config"]["classes"].index(name) for name in card["trained"]])
    return kind(classes, fitted, card["settings"], card["tried"])


def _check_finite(inputs: np.ndarray) -> None:
    wrong = np.flatnonzero(~np.isfinite(inputs).all(1))
    if len(wrong):
        raise ValueError(
            f"the features of row {wrong[0]} hold a NaN or an infinity: "
            "leave the recording out, or compute them again"
        )


def _classes(labels: np.ndarray) -> np.ndarray:
    classes = np.unique(labels)
    if len(classes) < 2:
        raise ValueError(f"training needs two classes or more, and has {len(classes) or 'no rows'}")
    return classes


def _temperature(decisions: np.ndarray, labels: np.ndarray) -> float:
    """Returns the temperature of the lowest log loss over rows whose label was trained."""
    known = np.isfinite(decisions[np.arange(len(labels)), labels])
    if not known.any():
        return 1.0
    decisions, labels = decisions[known], labels[known]

    def loss(exponent: float) -> float:
        logarithms = scipy.special.log_softmax(decisions / np.exp(exponent), axis=1)
        return -logarithms[np.arange(len(labels)), labels].mean()

    found = scipy.optimize.minimize_scalar(loss, bounds=np.log(TEMPERATURES), method="bounded")
    return float(np.exp(found.x))


def _space(model: Mapping, inputs: np.ndarray) -> dict:
    """Returns what the kernel of any row with the training rows is computed from."""
    standardised = model["scaling"] == "standardised"
    scaler = StandardScaler(with_mean=standardised, with_std=standardised)
    rows = scaler.fit_transform(inputs)
    variance = float(rows.var(dtype=np.float64))
    gamma = 1 / (rows.shape[1] * variance) if variance else 1.0  # scikit-learn's gamma="scale"
    return {"scaler": scaler, "rows": rows, "kernel": model["kernel"], "gamma": gamma}


def _kernel(space: dict, inputs: np.ndarray) -> np.ndarray:
    """Returns float [n, training rows].

    One matrix product is 50 times as fast as LIBSVM's loop over pairs, with thousands of features,
    and serves all costs at once.
    """
    rows = space["scaler"].transform(inputs)
    return pairwise_kernels(
        rows, space["rows"], metric=space["kernel"], filter_params=True, gamma=space["gamma"]
    )


KINDS = {"mlr": MLR, "svc": SVC, "ridge": Ridge, "xgboost": XGBoost}  # by system
KINDS |= {"ds_svc": SVC, "ds_ridge": Ridge}
