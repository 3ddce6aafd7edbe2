"""Computes embeddings with speech models, by optional packages.

A model is a folder as `save_pretrained` of transformers writes it, its name on the Hugging Face
Hub, an ONNX file, or Smart Turn. No code of a model is run, and nothing is unpickled. Each model
has a licence of its own.
"""

import functools
import json
import re
import threading
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from ds_jax.features import embeddings_onnx, embeddings_transformers, smart_turn
from ds_jax.features.embeddings_transformers import CONFIG, EXTRACTOR, INSTALL, RATE, WEIGHTS
from ds_jax.runtime import files
from ds_jax.runtime.errors import ConfigError, check_number, first_line, naming

CARD = "README.md"
HUB_NAME = re.compile(r"([\w.-]+/[\w.-]+)(?:@(\S+))?")
_LOADING = threading.Lock()  # or each of several threads would load a model of its own


@dataclass(frozen=True)
class EmbeddingSettings:
    """The choice of a model and of one of its layers.

    Attributes:
        model: A folder; a name on the Hugging Face Hub, to which `@` may add a revision; an ONNX
            file; or `smart_turn.NAME`.
        layer: 0 is what the first layer of the transformer reads; n is what its layer n gives. Of
            an ONNX file the number of an output, from 0.
        sha256: The hash of the model's files, see `pin`; "" takes whatever is found.
        size: The number of features of a recording; 0 if unknown.

    Raises:
        ConfigError: A field has an impossible value.
    """

    model: str
    layer: int
    sha256: str = ""
    size: int = 0

    def __post_init__(self):
        if not self.model or not isinstance(self.model, str):
            allowed = (
                f"{smart_turn.NAME!r}, the folder or the ONNX file of a speech model, or its name "
                "on the Hugging Face Hub, such as 'microsoft/wavlm-large'"
            )
            raise ConfigError("embeddings.model", self.model, allowed)
        check_number("embeddings.layer", self.layer, int, 0, 1000)
        if self.model == smart_turn.NAME:  # or it would be downloaded first
            smart_turn.check_layer(self.layer, self.model)
        check_number("embeddings.size", self.size, int, 0, 1_000_000)

    @property
    def name(self) -> str:
        """The model's name in reports: of a folder its last part alone."""
        return shown(self.model)

    def key(self) -> str:
        """Returns a part of the name of a folder; it differs if the features differ."""
        return f"{pinned(self).sha256[:16]}-{self.layer}"


class _Loaded(NamedTuple):
    """A model that is ready, see `embeddings_transformers.load`.

    Attributes:
        normalise: What it does to samples first.
        frames: What its layer gives for each frame.
        shortest: The number of samples that give one frame.
        longest: The number of seconds that it reads at a time.
    """

    normalise: Callable[[np.ndarray], np.ndarray]
    frames: Callable[[np.ndarray], np.ndarray]
    shortest: int
    longest: int


def shown(model: str) -> str:
    """Returns a model's name for readers elsewhere: of a path the last part alone."""
    return model if HUB_NAME.fullmatch(model) else Path(model).name


def pin(config: MutableMapping[str, Any], group: str = "") -> None:
    """Notes in a config which model it means, if it reads embeddings: `sha256` and `size`.

    A config that has both is left as it is, and its model is not looked for. Members of an ensemble
    are configs too: `group` is what stands before the names of their fields in errors.

    Raises:
        ConfigError: There is no such model or layer, or the model has another hash.
        ValueError: A file of the model is damaged, or a package is missing.
    """
    for name, member in config.get("members", {}).items():
        pin(member, f"{group}members.{name}.")
    if config.get("features") == "embeddings":
        with naming(group):
            found = pinned(EmbeddingSettings(**config["embeddings"]))
        config["embeddings"]["sha256"], config["embeddings"]["size"] = found.sha256, found.size


def pinned(settings: EmbeddingSettings) -> EmbeddingSettings:
    """Returns settings with the hash and the size of the model that is found.

    Raises:
        ConfigError, ValueError: As `pin`.
    """
    if settings.sha256 and settings.size:
        return settings
    place = find(settings.model, settings.layer)
    values = _reader(place).inspect(place, settings.model, settings.layer)
    found = {"sha256": _hash(place), "size": 2 * values}
    for name, value in found.items():
        given = getattr(settings, name)
        if given and given != value:
            raise ConfigError(f"embeddings.{name}", given, f"{value!r}, as of {settings.model}")
    return replace(settings, **found)


def find(model: str, layer: int = 0, *, download: bool = True) -> Path:
    """Finds the folder or file of a model; one on the Hub is downloaded if it is not yet here.

    Its weights, which can be gigabytes, are downloaded only if it has the layer. Where `download`
    is False, a part of it that is here will do.

    Raises:
        FileNotFoundError: Nothing of it is here, and it may not be downloaded.
        ConfigError: There is neither, and it cannot be had from the Hub, or has no such layer.
        ValueError: The package huggingface_hub is missing.
    """
    if model == smart_turn.NAME:
        return smart_turn.find()
    place = files.expand(model)
    if place.exists():
        return place
    on_hub = HUB_NAME.fullmatch(model)
    if not on_hub or place.suffix == embeddings_onnx.SUFFIX:
        allowed = (
            "a folder or ONNX file that exists, a name on the Hugging Face Hub: OWNER/NAME, or "
            f"{smart_turn.NAME!r}"
        )
        raise ConfigError("embeddings.model", model, allowed)
    try:
        import huggingface_hub
    except ImportError as error:
        raise ValueError(
            f"embeddings.model={model!r} is no folder or file, and to ask the Hugging Face Hub "
            f"needs the package huggingface_hub: install it with `{INSTALL}`"
        ) from error
    name, revision = on_hub.groups()
    described = [CONFIG, EXTRACTOR, CARD]

    def get(*wanted: str, **options) -> Path:
        options |= {"revision": revision, "allow_patterns": [*described, *wanted]}
        return Path(huggingface_hub.snapshot_download(name, **options))

    try:
        folder = get(*WEIGHTS, local_files_only=True)
        if not download or any(folder.glob(WEIGHTS[0])):  # another program may have wanted less
            return folder
    except Exception as error:  # no class is common to all that is missing
        if not download:
            raise FileNotFoundError(f"{model} is not in the cache of the Hub") from error
    try:
        folder = get()
        embeddings_transformers.check(folder, model, layer)
        return get(*WEIGHTS)
    except ConfigError:
        raise
    except Exception as error:  # of the Hub, of its client or of the network
        allowed = (
            f"a model that can be had ({first_line(error)}). Where there is a network, `hf "
            f"download {name} --local-dir {Path(name).name}` downloads it: give that folder here"
        )
        raise ConfigError("embeddings.model", model, allowed) from error


def statistics(samples: np.ndarray, settings: EmbeddingSettings) -> np.ndarray:
    """Computes the mean and the standard deviation over time of what a layer gives.

    The recording is normalised as a whole, if the model has that done. Each recording is read
    alone and without padding, which changes the numbers of some models; one that is longer than
    the model reads at a time in equal parts that are not, and mean and deviation are over the
    frames of all. The last layer's values are those after the normalisation that ends the
    transformer, where there is one.

    Args:
        samples: float32 [n] at 16 kHz, mono.
        settings: The model and the layer.

    Returns:
        float32 [2 * d]: the means of the layer's d values, and their deviations.

    Raises:
        ConfigError, ValueError: The model cannot be used, see `load`; or the recording is too short
            for one frame.
    """
    loaded = load(settings)
    if len(samples) < loaded.shortest:
        raise ValueError(
            f"too short for {settings.name}: {1000 * len(samples) / RATE:.0f} ms where "
            f"{1000 * loaded.shortest / RATE:.0f} ms are needed"
        )
    normalised = loaded.normalise(samples)
    count, mean, squares = 0, 0.0, 0.0
    for part in np.array_split(normalised, -(-len(samples) // (loaded.longest * RATE))):
        frames = loaded.frames(part)
        of_part, together = frames.mean(axis=0), count + len(frames)
        squares += np.square(frames - of_part).sum(axis=0)
        squares += np.square(of_part - mean) * (count * len(frames) / together)
        mean += (of_part - mean) * (len(frames) / together)
        count = together
    return np.concatenate([mean, np.sqrt(squares / count)]).astype(np.float32)


def load(settings: EmbeddingSettings) -> _Loaded:
    """Loads a model, or returns one that was loaded before.

    It computes on the CPU, each recording in one thread, since several are read side by side.

    Raises:
        ConfigError: There is no such model or layer.
        ValueError: A package is missing; or the model is damaged, or another than the settings'.
    """
    with _LOADING:
        return _load(settings)


@functools.lru_cache(maxsize=2)
def _load(settings: EmbeddingSettings) -> _Loaded:
    place = find(settings.model, settings.layer)
    reader = _reader(place)
    loaded = _Loaded(*reader.load(place, settings.model, settings.layer), reader.LONGEST)
    found = _hash(place)
    if settings.sha256 not in ("", found):
        raise ValueError(
            f"{settings.model} is another model than the features were made with: its SHA-256 was "
            f"{settings.sha256} and is {found} now: bring back the first one"
        )
    return loaded


def _reader(place: Path) -> ModuleType:
    """Returns the module that reads the model in a folder, or in a file."""
    if place.name == smart_turn.FILE:
        return smart_turn
    return embeddings_onnx if place.is_file() else embeddings_transformers


def _hash(place: Path) -> str:
    """Returns the SHA-256 of the names and the content of a model's files."""
    states = ((path, path.stat()) for path in _reader(place).read_files(place))
    return _hash_of(tuple((path, s.st_size, s.st_mtime_ns) for path, s in states))


@functools.lru_cache(maxsize=8)  # a large model takes seconds
def _hash_of(states: tuple[tuple[Path, int, int], ...]) -> str:
    return _digest({path.name: files.sha256(path) for path, _, _ in states})


def _digest(hashes: Mapping[str, str]) -> str:
    return files.sha256(json.dumps(hashes, sort_keys=True).encode())


def terms(settings: EmbeddingSettings) -> str:
    """Returns sentences about a model: its licence and its training data, as its card says."""
    said = f"The features are of layer {settings.layer} of {settings.name}"
    published = smart_turn.SOURCES[0].hash.removeprefix("sha256:")
    if settings.sha256 == _digest({smart_turn.FILE: published}):
        return f"{said}. {smart_turn.TERMS}"
    try:
        place = find(settings.model, download=False)
        folder = place.parent if place.is_file() else place
        card = _front_matter(folder / CARD)
    except (OSError, ValueError, ImportError):  # prepared features need neither
        return f"{said}, whose model card was not there to be read"
    if folder.parent.name == "snapshots":  # of the Hub's cache
        said += f", revision {folder.name}"
    licence = card.get("license_name") or card.get("license")
    data = card.get("datasets")
    data = ", ".join(map(str, data)) if isinstance(data, list) else data
    licensed = f"gives its licence as {licence}" if licence else "does not say its licence"
    trained = f"its training data as {data}" if data else "does not say its training data"
    return f"{said}. Its model card {licensed}, and {trained}"


def _front_matter(path: Path) -> dict[str, Any]:
    """Reads the fields that a model card begins with; a file without any has none."""
    import yaml  # of the optional packages

    if not path.is_file():
        return {}
    parts = path.read_text(encoding="utf-8", errors="replace").split("---", 2)
    if len(parts) < 3 or parts[0].strip():
        return {}
    try:
        content = yaml.safe_load(parts[1])
    except yaml.YAMLError:
        return {}
    return content if isinstance(content, dict) else {}
