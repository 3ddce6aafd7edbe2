"""Classifiers that are fitted at once: linear regression, support vectors, boosted trees."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import joblib
import numpy as np
import scipy.optimize
import scipy.special
import threadpoolctl
import xgboost
from sklearn import svm
from sklearn.exceptions import ConvergenceWarning
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import LinearRegression
from sklearn.metrics.pairwise import pairwise_kernels
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ds_jax.evaluation.metrics import confusion, uar
from ds_jax.runtime.errors import ConfigError
from ds_jax.systems.classifier import Classifier, check_finite, classes_of
from ds_jax.training import checkpoints

# Separable features need some 2,000 steps of LIBSVM, hard ones 500,000. Unscaled features with a
# linear kernel could go on for hours: they stop here, and `Classifier.stopped` counts them.
STEPS = 1_000_000
# How much more a block may weigh than each other: from alike to nearly alone.
WEIGHTS = (1.0, 3.0, 10.0, 30.0)
# Below .1, one vote more than the others would be as good as certainty.
TEMPERATURES = (0.1, 100.0)

InnerFold = tuple[np.ndarray, np.ndarray]  # int rows that are fitted, int rows that are held out


class MLR(Classifier):
    """Multivariate linear regression: least squares on one-hot targets, of standardised inputs."""

    @classmethod
    def fit(cls, model, inputs, labels, inner, seed, weights) -> "MLR":
        """Fits the rows; `model`, `inner` and `seed` are not used."""
        classes = classes_of(labels)
        targets = (labels[:, None] == classes).astype(float)
        # Double precision: features such as a variance and its root are nearly collinear.
        pipeline = make_pipeline(StandardScaler(), LinearRegression())
        given = {f"{step}__sample_weight": weights for step in pipeline.named_steps}
        return cls(classes, pipeline.fit(inputs.astype(np.float64), targets, **given))

    def _scores(self, inputs):
        """Returns the outputs, which sum to one, with those below zero cut off."""
        return np.maximum(self.fitted.predict(inputs.astype(np.float64)), 0)


class XGBoost(Classifier):
    """Gradient-boosted trees, in XGBoost's JSON, which later versions can read too."""

    library, file = xgboost, "model.json"

    @classmethod
    def fit(cls, model, inputs, labels, inner, seed, weights) -> "XGBoost":
        """Fits the rows; `inner` is not used."""
        classes = classes_of(labels)
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
        return cls(
            classes, trees.fit(inputs, np.searchsorted(classes, labels), sample_weight=weights)
        )

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
    def fit(cls, model, inputs, labels, inner, seed, weights) -> "SVC":
        """Fits the rows at the cost that the inner folds choose; `seed` is not used."""
        classes, costs = classes_of(labels), sorted(set(model["costs"]))
        if len(costs) > 1 and not inner:
            raise ConfigError("model.costs", costs, "a single cost: there are no inner folds")
        settings, tried, stopped = {"C": costs[0], "temperature": 1.0}, [], 0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # counted instead
            if inner:
                settings, tried, stopped = cls._choose(model, costs, inputs, labels, inner, weights)
            space = _space(model, inputs, weights, settings.get("weight", 1.0))
            machine = cls._fit_kernel(settings["C"], _kernel(space, inputs), labels, weights)
        stopped += cls._is_stopped(machine)
        return cls(classes, space | {cls.machine: machine}, settings, tried, stopped)

    machine = "svc"  # what the fitted machine is called in the model's file

    @staticmethod
    def _fit_kernel(
        cost: float, kernel: np.ndarray, labels: np.ndarray, weights: np.ndarray | None
    ) -> svm.SVC:
        # break_ties: it decides for the highest decision value, which is the most probable label.
        svc = svm.SVC(C=cost, kernel="precomputed", break_ties=True, max_iter=STEPS)
        return svc.fit(kernel, labels, weights)

    @staticmethod
    def _is_stopped(svc: svm.SVC) -> bool:
        return svc.fit_status_ != 0

    @staticmethod
    def decide(svc: svm.SVC, kernel: np.ndarray) -> np.ndarray:
        """Returns float64 [n, k]: a vote for each class beaten, and less than half for how clearly.

        For two classes scikit-learn has a single value, positive for the second.
        """
        decisions = svc.decision_function(kernel)
        return decisions if decisions.ndim == 2 else np.stack([-decisions, decisions], 1) / 2

    @classmethod
    def _choose(cls, model, costs, inputs, labels, inner, weights):
        """Returns the settings, the UAR of each choice, and how many fits were stopped."""
        emphasised = "emphasis" in model
        choices = [(w, cost) for w in (WEIGHTS if emphasised else (1.0,)) for cost in costs]
        # LIBSVM and BLAS run outside Python's lock, so threads do, and need no copies of the
        # inputs. The threads of BLAS would get in their way and add up in another order.
        parallel = joblib.Parallel(joblib.cpu_count(), prefer="threads")
        folds = (
            joblib.delayed(cls._held_out)(model, choices, inputs, labels, weights, *fold)
            for fold in inner
        )
        with threadpoolctl.threadpool_limits(1):
            parts, stopped = zip(*parallel(folds), strict=True)
        decisions = np.concatenate(parts, axis=1)
        truth = labels[np.concatenate([held_out for _, held_out in inner])]
        # Rounded, since equal scores may differ by their last digit.
        count = decisions.shape[2]
        scores = [round(float(uar(confusion(truth, x.argmax(1), count))), 12) for x in decisions]
        best = int(np.argmax(scores))
        named = [{"C": c} | ({"weight": w} if emphasised else {}) for w, c in choices]
        settings = named[best] | {"temperature": _temperature(decisions[best], truth)}
        tried = [choice | {"uar": score} for choice, score in zip(named, scores, strict=True)]
        return settings, tried, sum(stopped)

    @classmethod
    def _held_out(
        cls, model, choices, inputs, labels, weights, train, held_out
    ) -> tuple[np.ndarray, int]:
        """Fits an inner fold by each choice; returns decisions, and how many fits were stopped.

        Decisions are float64 [choices, held-out rows, classes], -inf for classes not trained.
        """
        classes = classes_of(labels[train])
        weights = None if weights is None else weights[train]
        decisions = np.full((len(choices), len(held_out), labels.max() + 1), -np.inf)
        stopped, last = 0, None
        for (weight, cost), rows in zip(choices, decisions, strict=True):
            if weight != last:
                space, last = _space(model, inputs[train], weights, weight), weight
                within, across = _kernel(space, inputs[train]), _kernel(space, inputs[held_out])
            machine = cls._fit_kernel(cost, within, labels[train], weights)
            rows[:, classes] = cls.decide(machine, across)
            stopped += cls._is_stopped(machine)
        return decisions, stopped

    def _scores(self, inputs):
        """Returns the softmax of the decision values, whose order a temperature leaves alone."""
        decisions = self.decide(self.fitted[self.machine], _kernel(self.fitted, inputs))
        return scipy.special.softmax(decisions / self.settings["temperature"], axis=1)


class Ridge(SVC):
    """Kernel ridge regression on one-hot targets, whose classes weigh alike in the loss.

    Its inverse penalty C, in units of the kernel's mean diagonal, and its temperature are chosen as
    those of `SVC`, and with C the weight of the block that `model["emphasis"]` numbers, if any.
    """

    machine = "ridge"

    @classmethod
    def fit(cls, *arguments) -> "Ridge":
        """Fits as `SVC.fit`; of a linear kernel coefficients are kept, and no training rows."""
        ridge = super().fit(*arguments)
        if ridge.fitted["kernel"] == "linear":
            machine = ridge.fitted[cls.machine]
            ridge.fitted["rows"] = machine.dual_coef_.T @ ridge.fitted["rows"]  # [classes, d]
            machine.n_features_in_ = len(ridge.fitted["rows"])
            machine.dual_coef_ = machine.X_fit_ = np.eye(machine.n_features_in_)
        return ridge

    @staticmethod
    def _fit_kernel(
        cost: float, kernel: np.ndarray, labels: np.ndarray, weights: np.ndarray | None
    ) -> KernelRidge:
        weights = np.ones(len(labels)) if weights is None else weights
        penalty = float(np.average(np.diagonal(kernel), weights=weights)) / cost
        _, numbers = np.unique(labels, return_inverse=True)
        totals = np.bincount(numbers, weights)
        weights = weights * weights.sum() / (len(totals) * totals[numbers])
        # Balanced classes have a mean of one over their number, which stands for an intercept.
        classes = classes_of(labels)
        targets = (labels[:, None] == classes) - 1 / len(classes)
        ridge = KernelRidge(alpha=penalty, kernel="precomputed")
        return ridge.fit(kernel.astype(np.float64), targets, weights)

    @staticmethod
    def _is_stopped(ridge: KernelRidge) -> bool:
        return False  # solved in closed form

    @staticmethod
    def decide(ridge: KernelRidge, kernel: np.ndarray) -> np.ndarray:
        """Returns float64 [n, k]."""
        return ridge.predict(kernel.astype(np.float64))


def fit(
    kind: type[Classifier],
    model: Mapping,
    inputs: np.ndarray,
    labels: np.ndarray,
    inner: Sequence[InnerFold],
    seed: int,
    weights: np.ndarray | None = None,
) -> Classifier:
    """Fits a classifier on all rows given.

    Args:
        kind: `MLR`, `SVC`, `Ridge` or `XGBoost`.
        model: The fields of `config.model`, which `base.check` has passed.
        inputs: float32 [n, d], training rows only.
        labels: int [n], indices of classes.
        inner: For `SVC` and `Ridge`, rows of `inputs` that are fitted and rows that are held out.
        seed: The seed by which XGBoost draws features; nothing else is random.
        weights: float [n], what each row weighs in the fit and in its scaling; None: 1 each.

    Raises:
        ConfigError: There are several costs, and no inner folds.
        ValueError: A number is not finite, or training has a single label.
    """
    check_finite(inputs)
    return kind.fit(model, inputs, labels, inner, seed, weights)


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


def _space(model: Mapping, inputs: np.ndarray, weights: np.ndarray | None, weight: float) -> dict:
    """Returns what the kernel of any row with the training rows is computed from.

    The block that `model` emphasises, if any, has a weight, and each other block the weight 1.
    """
    standardised = model["scaling"] == "standardised"
    scaler = StandardScaler(with_mean=standardised, with_std=standardised)
    rows = scaler.fit(inputs, sample_weight=weights).transform(inputs)
    variance = float(rows.var(dtype=np.float64))
    gamma = 1 / (rows.shape[1] * variance) if variance else 1.0  # scikit-learn's gamma="scale"
    space = {"scaler": scaler, "rows": rows, "kernel": model["kernel"], "gamma": gamma}
    if blocks := model.get("blocks"):  # of whose linear kernels, over their features, the mean is
        of_blocks = np.ones(len(blocks))
        of_blocks[model.get("emphasis", 0)] = weight
        shares = np.repeat(of_blocks / (of_blocks.sum() * np.asarray(blocks)), blocks)
        space |= {"rows": (rows * shares).astype(np.float32), "blocks": list(blocks)}
    return space


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
