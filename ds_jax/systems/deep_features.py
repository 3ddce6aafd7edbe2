"""Features of pictures by VGG16 with its ImageNet weights, as a corpus' recordings are described
to a classifier that is no network (DeepSpectrum: fc2).

Computed once for a corpus, on all devices, and kept beside it.
"""

import difflib
import hashlib
import io
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from ds_jax.data.corpus import StoredPictures
from ds_jax.features.spectrogram import PictureSettings
from ds_jax.models import vgg16
from ds_jax.models.deep_spectrum import FULL_SIZE, POOLS
from ds_jax.models.preprocessing import network_input
from ds_jax.runtime import files, locks, processes, progress
from ds_jax.training import parallel
from ds_jax.training.parallel import ONE_MODEL

LAYERS = (*POOLS, "fc2")  # lower ones first

VERSION = 1  # raised whenever the numbers change: features kept from before are then not used
LONG = 5.0  # seconds after which it is worth a line how fast it went


def check(layers: Sequence[str], size: int) -> None:
    """Checks that features of these layers can be computed.

    Args:
        layers: Names among `LAYERS`.
        size: Pixels, side of the network's input.

    Raises:
        ValueError: A layer is unknown or given twice, there is none, or fc2 is asked of pictures
            that are not 224 x 224.
    """
    allowed = f"one or more of {', '.join(LAYERS)}"
    if not layers:
        raise ValueError(f"layers is empty: give {allowed}")
    for layer in layers:
        if layer not in LAYERS:
            nearest = difflib.get_close_matches(str(layer), LAYERS, n=1, cutoff=0.0)[0]
            raise ValueError(
                f"VGG16 has no layer {layer!r} (the nearest is {nearest!r}): give {allowed}"
            )
    if len(set(layers)) < len(layers):
        raise ValueError(f"layers={tuple(layers)} names a layer twice: give each once")
    if needs_full(layers) and size != FULL_SIZE:
        raise ValueError(
            f"the layer 'fc2' needs picture.size={FULL_SIZE}, not {size}: fc1's weights fit no "
            f"other; use {POOLS[-1]!r}"
        )


def needs_full(layers: Sequence[str]) -> bool:
    """Whether the layers need the weights of fc1 and fc2."""
    return "fc2" in layers


def compute(
    pictures: np.ndarray | StoredPictures,
    layers: Sequence[str],
    settings: PictureSettings,
    weights: Mapping[str, Mapping[str, np.ndarray]],
    cache: Path | None,
) -> np.ndarray:
    """Describes pictures by layers of VGG16.

    A pooled block gives the mean of each channel over all positions (64, 128, 256, 512 and 512
    features), fc2 its 4096 units after the ReLU. Means and features are float32.

    Args:
        pictures: uint8 [n, canvas, canvas], n at least 1, drawn by the settings.
        layers: Names among `LAYERS`, in the order in which their features are wanted.
        settings: How pictures are coloured, resized and centred.
        weights: Of `weights.load(path, full=needs_full(layers))`.
        cache: A folder in which a layer's features are kept, one .npz each; None keeps none. Of
            several processes the first writes it.

    Returns:
        float32 [n, features], the layers side by side.

    Raises:
        ValueError: As `check`; or the pictures are too small for a layer.
    """
    check(layers, settings.size)
    known, paths = {}, {}
    if cache:
        seen = _content(pictures)
        for layer in layers:
            digest = _digest(layer, settings, weights, (pictures.shape, seen))
            paths[layer] = cache / f"vgg16-{layer}-{settings.preprocessing}-{digest}.npz"
            known[layer] = _read(paths[layer], (len(pictures), _width(layer)))
    # Processes that found different files, each on a disk of its own, would wait for each other
    # for ever.
    missing = processes.in_any_process([known.get(layer) is None for layer in layers])
    wanted = [layer for layer, absent in zip(layers, missing, strict=True) if absent]
    if wanted:
        known |= _run(pictures, wanted, settings, weights)
    for layer in wanted:
        if cache and processes.is_first_process():
            content = io.BytesIO()
            np.savez(content, features=known[layer])  # which has a checksum
            with locks.hold(cache.with_name(f"{cache.name}.lock"), f"{cache}", wait=True):
                files.remove_unfinished(cache)
                files.write_bytes(paths[layer], content.getvalue())
    return np.concatenate([known[layer] for layer in layers], axis=1)


def create_extractor(
    layers: Sequence[str],
    settings: PictureSettings,
    weights: Mapping[str, Mapping[str, np.ndarray]],
) -> Callable[[np.ndarray, int], Callable[[], dict[str, np.ndarray]]]:
    """Places the weights on the devices, and compiles once for each number of rows.

    Args:
        layers: As in `compute`.
        settings: How pictures are coloured, resized and centred.
        weights: As in `compute`.

    Returns:
        A function of pictures, uint8 [n, canvas, canvas], and of the number of rows that they are
        padded to. It begins their way through VGG16, and returns a function that waits for its
        end: float32 [n, features] for each layer, in the order of `layers`.
    """
    highest = max(layers, key=LAYERS.index)
    last = min(LAYERS.index(highest) + 1, len(vgg16.BLOCKS))
    trunk = vgg16.VGG16(parallel.compute_dtype())
    fully_connected = vgg16.FullyConnected(parallel.compute_dtype())

    def step(weights, pictures):
        x = network_input(pictures, settings.colour_map, settings.size, settings.preprocessing)
        pools = trunk.apply({"params": weights}, x, 1, last)
        features = {
            name: jnp.mean(pool.astype(jnp.float32), axis=(1, 2)) for name, pool in pools.items()
        }
        if needs_full(layers):
            units = fully_connected.apply({"params": weights}, pools[POOLS[-1]])
            features["fc2"] = units.astype(jnp.float32)
        wanted = {layer: features[layer] for layer in layers}
        return jax.tree.map(lambda x: jax.lax.all_gather(x, parallel.AXIS, tiled=True), wanted)

    step = ONE_MODEL.parallel(step, models=1, whole=0, spread=1)
    weights = parallel.replicate({name: dict(weights[name]) for name in _used(highest)})

    def extract(pictures, size):
        rows, _, _ = ONE_MODEL.spread([[np.arange(len(pictures))]], 1, ONE_MODEL.width(size))
        features = step(weights, ONE_MODEL.put(pictures[rows[:, 0]]))
        return lambda: {layer: np.asarray(features[layer])[: len(pictures)] for layer in layers}

    return extract


def _run(
    pictures: np.ndarray | StoredPictures,
    layers: Sequence[str],
    settings: PictureSettings,
    weights: Mapping[str, Mapping[str, np.ndarray]],
) -> dict[str, np.ndarray]:
    """Computes all layers in one pass; float32 [n, features] for each."""
    extract = create_extractor(layers, settings, weights)
    # A device takes equally many each time, so that one shape is compiled.
    size = min(parallel.rows_together(), ONE_MODEL.width(len(pictures)) * jax.device_count())
    began, shown = time.monotonic(), processes.is_first_process()
    parts, under_way = [], None
    with progress.bar("VGG16 features", len(pictures), "pictures", shown=shown) as bar:
        for start in range(0, len(pictures), size):
            batch = pictures[start : start + size]
            # The host cuts and sends a batch while the devices work at the one before.
            before, under_way = under_way, extract(batch, size)
            if before:
                parts.append(before())
            bar.update(len(batch))
        parts.append(under_way())
    if (seconds := time.monotonic() - began) > LONG:
        rate = len(pictures) / seconds
        processes.say(f"VGG16 features: {len(pictures)} pictures, {rate:.1f} pictures/s")
    return {layer: np.concatenate([part[layer] for part in parts]) for layer in layers}


def _content(pictures: np.ndarray | StoredPictures) -> str:
    """A digest of all pictures, of which a few are in memory at a time."""
    digest = hashlib.sha256()
    for start in range(0, len(pictures), 1024):
        digest.update(np.ascontiguousarray(pictures[start : start + 1024]))
    return digest.hexdigest()


def _used(layer: str) -> list[str]:
    """Names of the layers with weights that a layer's features depend on."""
    blocks = vgg16.BLOCKS[: LAYERS.index(layer) + 1]
    names = [
        f"block{block}_conv{index}"
        for block, (_, convolutions) in enumerate(blocks, start=1)
        for index in range(1, convolutions + 1)
    ]
    return names + ["fc1", "fc2"] * needs_full([layer])


def _width(layer: str) -> int:
    """How many features a layer has."""
    return vgg16.UNITS if layer == "fc2" else vgg16.BLOCKS[LAYERS.index(layer)][0]


def _digest(
    layer: str,
    settings: PictureSettings,
    weights: Mapping[str, Mapping[str, np.ndarray]],
    pictures: tuple,
) -> str:
    """A short name of all that a layer's features depend on."""
    dtype = jnp.dtype(parallel.compute_dtype()).name
    drawn = (settings.colour_map, settings.size, settings.preprocessing)
    digest = hashlib.sha256(repr((VERSION, layer, *drawn, dtype, pictures)).encode())
    for name in _used(layer):
        for kind in ("kernel", "bias"):
            digest.update(np.ascontiguousarray(weights[name][kind], np.float32))
    return digest.hexdigest()[:16]


def _read(path: Path, shape: tuple[int, int]) -> np.ndarray | None:
    """The features kept in a file; None where there are none, or none that can be used."""
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
