"""Classifiers that are fitted at once: linear regression, support vectors, boosted trees."""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from numbers import Real
from pathlib import Path

import joblib
import numpy as np
import scipy.optimize
import scipy.special
import sklearn
import skops.io
import threadpoolctl
import xgboost
from sklearn.linear_model import LinearRegression
from sklearn.metrics.pairwise import pairwise_kernels
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from ds_jax.data.corpus import LABELS
from ds_jax.evaluation.metrics import confusion, uar
from ds_jax.runtime.files import read_json, write_bytes, write_json

# What reports call them; DS-SVC is the same classifier on VGG16 features of the pictures.
SYSTEMS = {"mlr": "MLR", "svc": "SVC", "xgboost": "XGBoost", "ds_svc": "DS-SVC"}
KERNELS = ("linear", "rbf")
SCALINGS = ("standardised", "none")
FILE = "classifier.json"
FIELDS = ("system", "labels", "classes", "settings", "tried", "sha256", "version", "fold", "config")

# Separable features need some 2,000 steps of LIBSVM, hard ones 500,000. Unscaled features with a
# linear kernel could go on for hours: they stop here, with scikit-learn's ConvergenceWarning.
_STEPS = 1_000_000
_MOST = 1_000_000  # trees, levels, bins
# Below .1, one vote more than the others would be as good as certainty.
_TEMPERATURES = (0.1, 100.0)

Fold = tuple[np.ndarray, np.ndarray]  # int rows that are fitted, int rows that are held out


@dataclasses.dataclass(frozen=True)
class Classifier:
    """A fitted classifier.

    Attributes:
        system: One of `SYSTEMS`.
        classes: int [k], the label indices seen in training, ascending.
        fitted: What scikit-learn or XGBoost made of the training rows.
        settings: What the fit has chosen: "C" and "temperature", or nothing.
        tried: What it has chosen from: for each cost "C" and the "uar" of the inner folds.
    """

    system: str
    classes: np.ndarray
    fitted: object
    settings: dict[str, float]
    tried: list[dict[str, float]]

    def probabilities(self, inputs: np.ndarray) -> np.ndarray:
        """What it says of feature vectors.

        Linear regression's outputs, which sum to one, are cut off at zero and normalised; the
        decision values of support vectors go through a softmax at the chosen temperature. Neither
        changes which label is the highest.

        Args:
            inputs: float32 [n, d].

        Returns:
            float64 [n, 7], rows sum to one; 0 for labels that training did not have.

        Raises:
            ValueError: A number is not finite, or d is not that of the training.
        """
        _check_finite(inputs)
        if self.system == "mlr":
            scores = np.maximum(self.fitted.predict(inputs.astype(np.float64)), 0)
        elif self.system == "xgboost":
            scores = self.fitted.predict_proba(inputs).astype(np.float64)
        else:
            decisions = _decisions(self.fitted["svc"], _kernel(self.fitted, inputs))
            scores = scipy.special.softmax(decisions / self.settings["temperature"], axis=1)
        probabilities = np.zeros((len(inputs), len(LABELS)))
        probabilities[:, self.classes] = scores / scores.sum(1, keepdims=True)
        return probabilities


def check(system: str, model: Mapping) -> None:
    """Checks the fields of `config.model` that a system needs.

    Raises:
        ValueError: The system is unknown, or a field is missing or has an impossible value.
    """
    if system not in SYSTEMS:
        raise ValueError(f"system={system!r} is not one of {', '.join(map(repr, SYSTEMS))}")
    if system == "mlr":
        return
    if system == "xgboost":
        for name, least in {"trees": 1, "depth": 1, "bins": 2}.items():
            value = _field(model, name)
            if not isinstance(value, int) or not least <= value <= _MOST:
                raise ValueError(f"model.{name}={value!r} must be a whole number from {least} on")
        for name in ("learning_rate", "column_share"):
            if not 0 < _field(model, name) <= 1:
                raise ValueError(f"model.{name}={model[name]!r} must be above 0 and at most 1")
        return
    for name, known in {"kernel": KERNELS, "scaling": SCALINGS}.items():
        if _field(model, name) not in known:
            raise ValueError(
                f"model.{name}={model[name]!r} is not one of {', '.join(map(repr, known))}"
            )
    costs = _field(model, "costs")
    if len(costs) == 0 or not all(isinstance(cost, Real) and 0 < cost < np.inf for cost in costs):
        raise ValueError(f"model.costs={costs!r} must be one or more numbers above 0")


def fit(
    system: str,
    model: Mapping,
    inputs: np.ndarray,
    labels: np.ndarray,
    inner: Sequence[Fold],
    seed: int,
) -> Classifier:
    """Fits a classifier on all rows given.

    - mlr: least squares on one-hot targets (scikit-learn), on standardised inputs.
    - svc, ds_svc: LIBSVM through scikit-learn, with `kernel` ("linear", or "rbf" with
      gamma="scale") and `scaling` ("standardised" or "none"). Of `costs` the one with the highest
      UAR over all held-out rows of the inner folds is taken, the smallest of equals. Then the
      temperature is taken at which those held-out decisions have the lowest log loss (Guo et al.
      2017); held-out labels that an inner fold does not train are errors for the UAR, and left out
      of the log loss. A single cost without inner folds has the temperature 1.
    - xgboost: `trees`, `depth`, `learning_rate`, `column_share` of the features for each tree, and
      `bins` into which a feature's values are sorted.

    Args:
        system: One of `SYSTEMS`.
        model: The fields of `config.model` named above.
        inputs: float32 [n, d], training rows only.
        labels: Int [n], indices into `LABELS`.
        inner: For svc and ds_svc, rows of `inputs` that are fitted and rows that are held out.
        seed: XGBoost draws features by it; nothing else here is random.

    Raises:
        ValueError: A field of `model` is impossible, a number is not finite, there is only one
            label in training, or several costs and no inner folds.
    """
    check(system, model)
    _check_finite(inputs)
    classes = _classes(labels)
    if system == "mlr":
        targets = np.eye(len(LABELS))[labels][:, classes]
        # Double precision: features such as a variance and its root are nearly collinear.
        fitted = make_pipeline(StandardScaler(), LinearRegression())
        return Classifier(system, classes, fitted.fit(inputs.astype(np.float64), targets), {}, [])
    if system == "xgboost":
        fitted = _trees(model, seed).fit(inputs, np.searchsorted(classes, labels))
        return Classifier(system, classes, fitted, {}, [])
    costs = sorted(set(model["costs"]))
    if len(costs) > 1 and not inner:
        raise ValueError(f"model.costs={costs} needs inner folds to choose from: give one cost")
    settings, tried = {"C": costs[0], "temperature": 1.0}, []
    if inner:
        settings, tried = _choose(model, costs, inputs, labels, inner)
    space = _space(model, inputs)
    svc = _support_vectors(settings["C"], _kernel(space, inputs), labels)
    return Classifier(system, classes, space | {"svc": svc}, settings, tried)


def save(directory: Path, classifier: Classifier, config: dict, fold: str = "") -> None:
    """Writes `model.skops` or `model.json` (XGBoost's own format) and, last, classifier.json.

    Args:
        directory: Made where it does not exist. What it held before is replaced.
        classifier: To be saved.
        config: The run's config, as JSON.
        fold: Of `leaks.fold_digest`.
    """
    (directory / FILE).unlink(missing_ok=True)  # From here until the end there is no classifier.
    if classifier.system == "xgboost":
        library, name = xgboost, "model.json"
        content = bytes(classifier.fitted.get_booster().save_raw("json"))
    else:
        library, name = sklearn, "model.skops"
        content = skops.io.dumps(classifier.fitted)
    write_bytes(directory / name, content)
    description = {
        "system": classifier.system,
        "labels": list(LABELS),
        "classes": classifier.classes.tolist(),
        "settings": classifier.settings,
        "tried": classifier.tried,
        "file": name,
        "sha256": hashlib.sha256(content).hexdigest(),
        "version": library.__version__,
        "config": config,
        "fold": fold,
    }
    write_json(directory / FILE, description, sealed=True)


def is_saved(directory: Path) -> bool:
    """Whether a whole classifier lies in the folder."""
    return (directory / FILE).is_file()


def load(directory: Path) -> tuple[dict, Classifier]:
    """Reads the config and the classifier that `save` has written; nothing is unpickled.

    Raises:
        FileNotFoundError: There is no classifier, or one of its files is missing.
        ValueError: It is damaged, of other labels or of another version of scikit-learn, or its
            file holds anything that skops does not trust.
    """
    description = describe(directory)
    system = description["system"]
    path = directory / ("model.json" if system == "xgboost" else "model.skops")
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}: train this fold again")
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != description["sha256"]:
        raise ValueError(f"damaged: {path} is not the file that {FILE} describes; train it again")
    if system == "xgboost":  # whose format later versions can read
        fitted = xgboost.XGBClassifier(n_jobs=1)
        fitted.load_model(bytearray(content))
    else:
        fitted = _read_skops(path, content, description["version"])
    classes, chosen = np.asarray(description["classes"]), description["settings"]
    return description["config"], Classifier(system, classes, fitted, chosen, description["tried"])


def describe(directory: Path) -> dict:
    """Reads classifier.json: `FIELDS`, of which "config" and "fold" are what `save` was given.

    Raises:
        FileNotFoundError, ValueError: As `load`.
    """
    if not is_saved(directory):
        raise FileNotFoundError(f"there is no {directory / FILE}: train this fold first")
    description = read_json(directory / FILE)
    if not set(FIELDS) <= description.keys():
        raise ValueError(
            f"damaged: {directory / FILE} does not describe a classifier; train it again"
        )
    if description["labels"] != list(LABELS):
        raise ValueError(
            f"the classifier in {directory} tells {', '.join(description['labels'])} apart, "
            f"not {', '.join(LABELS)}: it is of another label set"
        )
    return description


def _read_skops(path: Path, content: bytes, version: str) -> object:
    if version != sklearn.__version__:
        raise ValueError(
            f"{path} was written by scikit-learn {version}, and this is {sklearn.__version__}: "
            f"install scikit-learn=={version}, or train again"
        )
    untrusted = skops.io.get_untrusted_types(data=content)
    if untrusted:
        raise ValueError(f"{path} holds {', '.join(untrusted)}, which is not trusted: train again")
    fitted = skops.io.loads(content)
    if not isinstance(fitted, Pipeline | dict):
        raise ValueError(f"damaged: {path} holds no classifier: train again")
    return fitted


def _field(model: Mapping, name: str) -> object:
    if name not in model:
        raise ValueError(f"model.{name} is missing: give it in the config")
    return model[name]


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
        names = " and ".join(LABELS[index] for index in classes)
        raise ValueError(f"training needs two labels or more, and has {names or 'no rows'}")
    return classes


def _trees(model: Mapping, seed: int) -> xgboost.XGBClassifier:
    return xgboost.XGBClassifier(
        n_estimators=model["trees"],
        max_depth=model["depth"],
        learning_rate=model["learning_rate"],
        colsample_bytree=model["column_share"],
        max_bin=model["bins"],
        tree_method="hist",
        random_state=seed,
        # Threads add gradients up in an order of their own, and with few rows save no time.
        n_jobs=1,
    )


def _choose(
    model: Mapping,
    costs: list[float],
    inputs: np.ndarray,
    labels: np.ndarray,
    inner: Sequence[Fold],
) -> tuple[dict[str, float], list[dict[str, float]]]:
    """The settings, and the UAR of each cost."""
    # LIBSVM and BLAS run outside Python's lock, so threads do, and need no copies of the inputs.
    # BLAS has threads of its own, which would get in their way and add up in another order.
    parallel = joblib.Parallel(joblib.cpu_count(), prefer="threads")
    folds = (joblib.delayed(_held_out)(model, costs, inputs, labels, *fold) for fold in inner)
    with threadpoolctl.threadpool_limits(1):
        decisions = np.concatenate(parallel(folds), axis=1)
    truth = labels[np.concatenate([held_out for _, held_out in inner])]
    # Rounded, since equal ones may differ by their last digit.
    scores = [round(float(uar(confusion(truth, each.argmax(1)))), 12) for each in decisions]
    best = int(np.argmax(scores))
    settings = {"C": costs[best], "temperature": _temperature(decisions[best], truth)}
    tried = [{"C": cost, "uar": score} for cost, score in zip(costs, scores, strict=True)]
    return settings, tried


def _held_out(
    model: Mapping,
    costs: list[float],
    inputs: np.ndarray,
    labels: np.ndarray,
    train: np.ndarray,
    held_out: np.ndarray,
) -> np.ndarray:
    """float64 [costs, held-out rows, 7]; minus infinity for labels that are not in `train`."""
    classes = _classes(labels[train])
    space = _space(model, inputs[train])
    within, across = _kernel(space, inputs[train]), _kernel(space, inputs[held_out])
    decisions = np.full((len(costs), len(held_out), len(LABELS)), -np.inf)
    for cost, rows in zip(costs, decisions, strict=True):
        rows[:, classes] = _decisions(_support_vectors(cost, within, labels[train]), across)
    return decisions


def _temperature(decisions: np.ndarray, labels: np.ndarray) -> float:
    """The temperature of the lowest log loss, of the rows whose label has been trained."""
    known = np.isfinite(decisions[np.arange(len(labels)), labels])
    if not known.any():
        return 1.0
    decisions, labels = decisions[known], labels[known]

    def loss(exponent: float) -> float:
        logarithms = scipy.special.log_softmax(decisions / np.exp(exponent), axis=1)
        return -logarithms[np.arange(len(labels)), labels].mean()

    found = scipy.optimize.minimize_scalar(loss, bounds=np.log(_TEMPERATURES), method="bounded")
    return float(np.exp(found.x))


def _space(model: Mapping, inputs: np.ndarray) -> dict:
    """What the kernel of any row with the training rows is computed from."""
    standardised = model["scaling"] == "standardised"
    scaler = StandardScaler(with_mean=standardised, with_std=standardised)
    rows = scaler.fit_transform(inputs)
    variance = float(rows.var(dtype=np.float64))
    gamma = 1 / (rows.shape[1] * variance) if variance else 1.0  # scikit-learn's gamma="scale"
    return {"scaler": scaler, "rows": rows, "kernel": model["kernel"], "gamma": gamma}


def _kernel(space: dict, inputs: np.ndarray) -> np.ndarray:
    """Float [n, training rows]: one matrix product, where LIBSVM would take a loop over pairs.

    That is 50 times as fast with thousands of features, and serves all costs at once.
    """
    rows = space["scaler"].transform(inputs)
    return pairwise_kernels(
        rows, space["rows"], metric=space["kernel"], filter_params=True, gamma=space["gamma"]
    )


def _support_vectors(cost: float, kernel: np.ndarray, labels: np.ndarray) -> SVC:
    # break_ties: its own decision is the highest decision value, so the most probable label.
    svc = SVC(C=cost, kernel="precomputed", break_ties=True, max_iter=_STEPS)
    return svc.fit(kernel, labels)


def _decisions(svc: SVC, kernel: np.ndarray) -> np.ndarray:
    """float64 [n, k]: one vote for each class beaten, and under half a vote for how clearly."""
    decisions = svc.decision_function(kernel)
    # Of two classes scikit-learn gives a single value, positive for the second.
    return decisions if decisions.ndim == 2 else np.stack([-decisions, decisions], 1) / 2
