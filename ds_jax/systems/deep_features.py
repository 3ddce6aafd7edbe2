"""Layers of a pretrained backbone as features of pictures, squares and timelines.

DeepSpectrum reads fc2 of VGG16. Features are computed once for a corpus, on all devices, and kept
in its folder.
"""

import dataclasses
import hashlib
import io
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from ds_jax.data import recordings
from ds_jax.data.corpus import StoredPictures
from ds_jax.data.recordings import Paths, Recording, Unusable, Window
from ds_jax.features import extract, spectrogram
from ds_jax.features.source import Reading
from ds_jax.features.spectrogram import PictureSettings
from ds_jax.models.backbone import Backbone
from ds_jax.models.backbones import built
from ds_jax.models.preprocessing import network_input
from ds_jax.models.timeline import seen_positions, weighted_statistics
from ds_jax.runtime import files, locks, processes, progress
from ds_jax.runtime.progress import many
from ds_jax.systems import on_pictures
from ds_jax.systems.network import batched, gather, load_weights
from ds_jax.training import parallel
from ds_jax.training.parallel import ONE_MODEL

VERSION = 1  # raised whenever the numbers change: features kept from before are then not used
LONG = 5.0  # seconds after which a line says how fast it went


def extract_features(
    paths: Paths,
    layers: str | Sequence[str] = ("fc2",),
    settings: PictureSettings | None = None,
    weights: str | os.PathLike = "",
    unusable: list[Unusable] | None = None,
    backbone: str = "vgg16",
) -> list[dict[str, Any]]:
    """Computes a pretrained network's features of recordings, as DeepSpectrum does.

    Args:
        paths: Files of any rate and number of channels, folders and patterns, or one of these, see
            `recordings.find`.
        layers: The layers, or one, see `LayerFeatures`: "block1_pool" to "block5_pool", or "fc2";
            of another backbone any of Keras' names, such as "avg_pool".
        settings: How recordings are read, cut into windows and drawn; None means DeepSpectrum's
            settings for 16 kHz speech, and pictures of the size that the network was trained on.
        weights: A file of the network's ImageNet weights; "" means those that are published with
            Keras, which are downloaded once: of VGG16 59 MB, or 553 MB for fc2.
        unusable: A list to which all is added that cannot be used; None makes it an error.
        backbone: The network, as DeepSpectrum calls it: "vgg16", or one of those that Keras
            builds, see `ds_jax.models.keras_backbone`.

    Returns:
        A record of each window: `recording`, `start` and `end` in seconds, and `features`,
        float32 [d], the layers' features one after the other.

    Raises:
        ConfigError: There is no such layer, or the pictures do not fit it.
        FileNotFoundError: The file of weights does not exist.
        ValueError: A recording cannot be used.
    """
    processes.prepare()
    picture = dataclasses.asdict(settings or PictureSettings()) | ({} if settings else {"size": 0})
    config = {field.name: picture.pop(field.name) for field in dataclasses.fields(Reading)}
    config |= {"system": "ds_svc", "picture": picture}
    weights = str(files.expand(weights)) if weights else ""
    layers = (layers,) if isinstance(layers, str) else tuple(layers)
    config |= {"model": {"backbone": backbone, "layers": layers}, "weights": weights}
    config = ConfigDict(config)
    on_pictures.complete(config)
    on_pictures.check(config, extract.settings(config))
    windows = recordings.answer(paths, unusable, lambda found, bad: process(found, config, bad))
    return [
        window.times | {"features": vector}
        for batch, vectors in windows
        for window, vector in zip(batch, vectors, strict=True)
    ]


def process(
    found: Sequence[Recording], config: ConfigDict, unusable: list[Unusable]
) -> Iterator[tuple[list[Window], np.ndarray]]:
    """Yields windows of recordings and their features, float32 [n, d], as `recordings.process`.

    The config has `picture`, `model.layers` and `weights`; to `unusable` all is added that cannot
    be used.

    Raises:
        FileNotFoundError, ValueError: As `pretrained.load`.
    """
    features, size = create_features(config), parallel.rows_together()
    windowing, extractor = features.settings.windowing, features.create_extractor()
    return recordings.process(found, features.settings, windowing, size, extractor, unusable)


def create_features(config: ConfigDict) -> "LayerFeatures":
    """Loads the parameters that the features of a config's pictures and `model` need.

    Raises:
        ConfigError: The backbone has no such layer.
        FileNotFoundError, ValueError: As `pretrained.load`.
    """
    on_pictures.check_built(config)
    model, pooling = config.model, config.model.get("pooling", "mean")
    settings, weights = extract.settings(config), load_weights(config)
    return LayerFeatures(built(config), tuple(model.layers), settings, weights, pooling)


@dataclasses.dataclass(frozen=True, eq=False)
class LayerFeatures:
    """Features of pictures: layers of a backbone.

    An output without positions, such as that of VGG16's fc2, is taken as it is. Any other gives for
    each channel, by `pooling`:

    - "mean": the mean over all positions.
    - "statistics": that, and then the standard deviations (see `timeline.weighted_statistics`).
    - "rows": the mean over time of each row of frequencies.

    What lies after the end of a timeline does not count. Pooling and features are float32; a
    layer without positions that itself is a mean, as "avg_pool" of Keras' networks, is computed in
    the type of the network.

    Attributes:
        backbone: The network.
        layers: Names among `backbone.feature_layers`, in the order of their features.
        settings: How pictures are coloured, resized and centred.
        weights: The parameters of the layers that these depend on, see `pretrained.load`.
        pooling: How the positions of a block's output are summed up.
    """

    backbone: Backbone
    layers: Sequence[str]
    settings: PictureSettings
    weights: Mapping[str, Mapping[str, np.ndarray]]
    pooling: str = "mean"

    def compute(self, pictures: np.ndarray | StoredPictures, cache: Path | None) -> np.ndarray:
        """Computes the features of all pictures, or reads those that were kept.

        Args:
            pictures: uint8 [n, height, width], n at least 1, drawn by the settings.
            cache: A folder in which a layer's features are kept, a .npz file each; None keeps none.
                Of several processes the first writes it.

        Returns:
            float32 [n, features], the layers' features one after the other.

        Raises:
            ValueError: The pictures are too small for a layer.
        """
        kept, paths = {}, {}
        if cache:
            described = pictures.shape, _content(pictures)
            for layer in self.layers:
                digest = self._digest(layer, described)
                pooled = layer if self.pooling == "mean" else f"{layer}-{self.pooling}"
                name = f"{self.backbone.name}-{pooled}-{self.settings.preprocessing}-{digest}.npz"
                paths[layer] = cache / name
                kept[layer] = _read(paths[layer], (len(pictures), self._width(layer)))
        # Processes with different files, each on its own disk, would wait for each other for ever.
        missing = processes.in_any_process([kept.get(layer) is None for layer in self.layers])
        wanted = [layer for layer, absent in zip(self.layers, missing, strict=True) if absent]
        if wanted:
            kept |= dataclasses.replace(self, layers=wanted)._run(pictures)
        for layer in wanted:
            if cache and processes.is_first_process():
                content = io.BytesIO()
                np.savez(content, features=kept[layer])  # which has a checksum
                with locks.hold(cache.with_name(f"{cache.name}.lock"), f"{cache}", wait=True):
                    files.remove_unfinished(cache)
                    files.write_bytes(paths[layer], content.getvalue())
        return np.concatenate([kept[layer] for layer in self.layers], axis=1)

    def create_extractor(self) -> Callable[[np.ndarray, int], Callable[[], np.ndarray]]:
        """Places the weights on the devices.

        Returns:
            A function as `network.batched` returns it, from pictures, uint8 [n, height, width], to
            float32 [n, features], the layers' features one after the other.
        """
        backbone, settings, dtype = self.backbone, self.settings, parallel.compute_dtype()
        highest = max(self.layers, key=backbone.feature_layers.index)
        last = min(backbone.feature_layers.index(highest) + 1, len(backbone.blocks))
        kind = backbone.input_of(settings.preprocessing)
        trunk = backbone.trunk(backbone.blocks, dtype)

        def step(weights, pictures):
            size, widths = settings.size, None
            if settings.is_timeline:
                size, widths = None, jnp.sum(pictures[:, 0] > 0, axis=1, dtype=jnp.int32)
            x = network_input(pictures, settings.colour_map, size, kind)
            outputs = trunk.apply({"params": weights}, x, 1, last, widths)
            if highest not in outputs:
                top = backbone.top(backbone.units, dtype)
                x = outputs[backbone.outputs[-1]]
                outputs = {**outputs, highest: top.apply({"params": weights}, x)}
            features = []
            for layer in self.layers:
                # Each block halves the width.
                halvings = backbone.feature_layers.index(layer) + 1
                real = None if widths is None else widths >> halvings
                features.append(_pool(outputs[layer].astype(jnp.float32), real, self.pooling))
            return gather(tuple(features))

        step = ONE_MODEL.parallel(step, models=1, whole=0, spread=1)
        used = {name: dict(self.weights[name]) for name in self._used(highest)}
        weights = parallel.replicate(used)
        start = batched(lambda pictures, mask: step(weights, pictures))

        def extractor(pictures, size):
            wait = start(pictures, size)
            return lambda: np.concatenate(wait(), axis=1)

        return extractor

    def _run(self, pictures: np.ndarray | StoredPictures) -> dict[str, np.ndarray]:
        """Computes all layers in one pass; returns float32 [n, features] for each."""
        extractor = self.create_extractor()
        # A device takes equally many each time, so that one shape is compiled.
        size = min(parallel.rows_together(), ONE_MODEL.width(len(pictures)) * jax.device_count())
        parallel.say_compiling(self.backbone.title)
        began, shown = time.monotonic(), processes.is_first_process()
        parts, pending, title = [], [], f"{self.backbone.title} features"
        # Timelines of about the same width go together, so that less of a batch is padding.
        order, widths = np.arange(len(pictures)), None
        if self.settings.is_timeline:
            widths = spectrogram.widths(pictures)
            order = np.argsort(widths, kind="stable")
        with progress.bar(title, len(pictures), "pictures", shown=shown) as bar:
            for start in range(0, len(pictures), size):
                rows = order[start : start + size]
                batch = pictures[rows]
                if widths is not None:
                    batch = batch[..., : spectrogram.padded_width(widths[rows].max())]
                # The host prepares and sends a batch while the devices compute the one before.
                pending.append(extractor(batch, size))
                if len(pending) > 1:
                    parts.append(pending.pop(0)())
                bar.update(len(batch))
            parts.append(pending.pop()())
        if (seconds := time.monotonic() - began) > LONG:
            rate = len(pictures) / seconds
            processes.say(f"{title}: {many(len(pictures), 'picture')}, {rate:.1f} pictures/s")
        ends = np.cumsum([self._width(layer) for layer in self.layers])
        features = np.split(np.concatenate(parts)[np.argsort(order)], ends[:-1], axis=1)
        return dict(zip(self.layers, features, strict=True))

    def _used(self, layer: str) -> tuple[str, ...]:
        """Returns the names of the layers with parameters that a layer's features depend on."""
        number = self.backbone.feature_layers.index(layer) + 1
        top = self.backbone.top_layers if number > len(self.backbone.blocks) else ()
        return self.backbone.layers_to(number) + top

    def _width(self, layer: str) -> int:
        """Returns how many features a layer has."""
        number = self.backbone.feature_layers.index(layer)
        if number == len(self.backbone.blocks):
            return self.backbone.units
        height = self.settings.mel_bands if self.settings.is_timeline else self.settings.size
        block = self.backbone.blocks[number]
        rows = height >> (number + 1) if block.height is None else block.height
        parts = {"mean": 1, "statistics": 2, "rows": rows}
        return block.channels * (parts[self.pooling] if rows else 1)

    def _digest(self, layer: str, described: tuple) -> str:
        """Returns a short name of all that a layer's features depend on."""
        dtype = jnp.dtype(parallel.compute_dtype()).name
        drawn = (self.settings.colour_map, self.settings.size, self.settings.preprocessing)
        digest = hashlib.sha256(repr((VERSION, layer, *drawn, dtype, described)).encode())
        for name in self._used(layer):
            for kind in sorted(self.weights[name], reverse=True):  # the kernel before the bias
                digest.update(np.ascontiguousarray(self.weights[name][kind], np.float32))
        return digest.hexdigest()[:16]


def _pool(map: jax.Array, widths: jax.Array | None, pooling: str) -> jax.Array:
    """Pools a map as `LayerFeatures` says.

    Args:
        map: float32 [batch, height, width, channels], or [batch, features].
        widths: int32 [batch], the columns of each row that count; None where all do.
        pooling: How.

    Returns:
        float32 [batch, features].
    """
    if map.ndim == 2:
        return map
    if pooling == "mean" and widths is None:
        return jnp.mean(map, axis=(1, 2))
    if widths is None:
        widths = jnp.full(len(map), map.shape[2])
    seen = seen_positions(map.shape, widths)
    if pooling == "rows":
        rows = jnp.einsum("bhw,bhwc->bhc", seen, map) / jnp.sum(seen, axis=2)[:, :, None]
        return rows.reshape(len(map), -1)
    statistics = weighted_statistics(map, seen)
    return statistics if pooling == "statistics" else statistics[:, : map.shape[3]]


def _content(pictures: np.ndarray | StoredPictures) -> str:
    """Returns a digest of all pictures, of which a few are in memory at a time."""
    digest = hashlib.sha256()
    for start in range(0, len(pictures), 1024):
        digest.update(np.ascontiguousarray(pictures[start : start + 1024]))
    return digest.hexdigest()


def _read(path: Path, shape: tuple[int, int]) -> np.ndarray | None:
    """Reads the features kept in a file; returns None if there are none that can be used."""
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as stored:
            features = stored["features"]
        if features.shape != shape or features.dtype != np.float32:
            raise ValueError(f"{features.dtype} {features.shape} in place of float32 {shape}")
    except FileNotFoundError:
        return None
    except Exception as error:  # NumPy meets damage with errors of many kinds
        processes.say(f"{path} is damaged and is computed anew: {error}")
        return None
    return features
