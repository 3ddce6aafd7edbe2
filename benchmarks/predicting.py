"""Measures whether a folder of short recordings is processed at the rate of the network.

    python -m benchmarks.predicting
    python -m benchmarks.predicting --size=128 --recordings=200

Links to chirps of half a second are found, decoded, drawn and taken through VGG16 in the way of
`--mode=predict` and `--mode=features`; before and after, VGG16 alone reads as many pictures from
memory. The ratio compares the seconds for a recording: it is 1 where all other work goes on at the
same time as the network's.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks import chirps, generated, measuring
from ds_jax.data import recordings
from ds_jax.features import extract
from ds_jax.models.backbones import backbone_of
from ds_jax.runtime import processes
from ds_jax.systems.deep_features import LayerFeatures
from ds_jax.training import parallel

ALONE = 8  # batches by which the network's time is measured


def link(count: int, folder: Path) -> None:
    """Makes a folder of links to chirps."""
    chirps.write_corpus(folder / "chirps")
    sounds = sorted((folder / "chirps").glob("*.wav"))
    (folder / "many").mkdir()
    for number in range(count):
        (folder / "many" / f"{number:06}.wav").symlink_to(sounds[number % len(sounds)])


def network_alone(extractor: Callable, canvas: int) -> float:
    """Measures the seconds for a picture, in batches as large as those of `recordings.process`."""
    size = parallel.rows_together()
    pictures = np.random.default_rng(0).integers(0, 256, (size, canvas, canvas), np.uint8)
    extractor(pictures, size)()  # compiles
    began, under_way = time.perf_counter(), None
    for _ in range(ALONE):
        before, under_way = under_way, extractor(pictures, size)
        if before:
            before()
    under_way()
    return (time.perf_counter() - began) / (ALONE * size)


def main(arguments: list[str] | None = None) -> dict:
    """Measures, prints and writes."""
    parser = measuring.parser("predicting", __doc__)
    parser.add_argument("--recordings", type=measuring.positive, default=1000, help="how many")
    parser.add_argument("--size", type=measuring.positive, default=224, help="pixels")
    flags = parser.parse_args(arguments)
    processes.start()
    config = generated.config(flags.size, parallel.WIDTH, epochs=1)
    settings = extract.settings(config)
    extractor = LayerFeatures(
        backbone_of(config), ["block5_pool"], settings, generated.weights(flags.size)
    ).create_extractor()
    with tempfile.TemporaryDirectory() as name:
        link(flags.recordings, Path(name))
        alone = network_alone(extractor, config.picture.canvas)
        size = parallel.rows_together()
        began, unusable, done = time.perf_counter(), [], 0
        found, _ = recordings.find([Path(name) / "many"])
        for windows, _ in recordings.process(
            found, settings, settings.windowing, size, extractor, unusable, quiet=True
        ):
            done += len(windows)
        whole = (time.perf_counter() - began) / flags.recordings
        alone = (alone + network_alone(extractor, config.picture.canvas)) / 2
    if done != flags.recordings:
        raise ValueError(f"{flags.recordings - done} recordings were not worked off: {unusable}")
    rows = [("the network alone", 1 / alone), ("from files", 1 / whole)]
    measuring.table(f"{done} recordings, {flags.size} pixels", ("", "a second"), rows)
    found = {"machine": measuring.machine(), "recordings": done, "size": flags.size}
    found |= {"seconds": {"alone": alone, "from files": whole}, "ratio": alone / whole}
    print(f"the rate from files is {found['ratio']:.2f} of the network's")
    measuring.save(flags.output, found)
    return found


if __name__ == "__main__":
    main()
