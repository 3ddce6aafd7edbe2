"""The benchmarks on tiny sizes: what they count is right, and what they time is there."""

import json
import re
import subprocess
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import soundfile
import tiny

import ds_jax
from benchmarks import (
    bfloat16,
    convolutions,
    cross_validation,
    exports,
    generated,
    kills,
    measuring,
    operations,
    predicting,
    preparing,
    scaling,
    scaling_trial,
    soak,
    streaming,
)
from benchmarks import throughput as throughput_benchmark
from ds_jax.models import pretrained, vgg16
from ds_jax.models.backbones import BACKBONES
from ds_jax.runtime import graphs
from ds_jax.runtime.errors import ConfigError
from ds_jax.training import parallel as devices

# A launch.py that is done at once. A fold's steps take half a second an epoch, by what it writes.
LAUNCH = """
import json, pathlib, sys, time
flags = dict(argument.split("=", 1) for argument in sys.argv[1:])
print("VGG16's ImageNet weights: a file, from a test", flush=True)
time.sleep(0.6)
epochs = int(flags["--config.train.epochs"])
folds = [int(flags["--fold"])] if "--fold" in flags else range(int(flags["--config.folds.count"]))
for fold in folds:
    folder = pathlib.Path(flags["--workdir"]) / f"fold_{fold:02}"
    folder.mkdir(parents=True)
    lines = []
    for epoch in range(epochs):
        print(f"fold {fold} epoch {epoch + 1}/{epochs}  loss 1", flush=True)
        lines.append(json.dumps({"seconds": 0.5}) + chr(10))
    (folder / "metrics.jsonl").write_text("".join(lines))
    (folder / "predictions.csv").write_text(str(fold))
"""


class Plain(nn.Module):
    """VGG16's convolutions as Flax has them."""

    first: int = 1

    @nn.compact
    def __call__(self, x):
        for block, (channels, count) in enumerate(vgg16.BLOCKS, start=1):
            if block >= self.first:
                for _ in range(count):
                    x = nn.relu(nn.Conv(channels, (3, 3))(x))
                x = nn.max_pool(x, (2, 2), strides=(2, 2))
        return jnp.sum(x)


def counted_by_xla(first: int, step: bool) -> float:
    """XLA's own count of operations, of the blocks from `first` on, on a picture of 224."""
    network = Plain(first)
    below = vgg16.BLOCKS[first - 2][0] if first > 1 else 3
    x = jax.ShapeDtypeStruct((1, 224 >> (first - 1), 224 >> (first - 1), below), np.float32)
    params = jax.eval_shape(network.init, jax.random.key(0), x)
    function = jax.grad(network.apply) if step else network.apply
    return jax.jit(function).lower(params, x).cost_analysis()["flops"]


@pytest.mark.parametrize("frozen_blocks", [0, 3])
def test_operations_are_those_that_xla_counts(frozen_blocks, monkeypatch):
    """XLA leaves out products with the zeros around a map, and counts biases and the like too."""
    assert operations.forward_flops(224) == pytest.approx(30.7e9, rel=0.001)
    first = frozen_blocks + 1
    lower = operations.forward_flops(224) - operations.forward_flops(224, first)
    kept = operations.step_flops(224, frozen_blocks, kept=True)
    assert operations.step_flops(224, frozen_blocks) == kept + lower

    def inside(layer: operations.Convolution) -> float:
        taps = layer.side * 3 - 2  # of a row of outputs that see no zero
        return 2 * taps**2 * layer.channels[0] * layer.channels[1]

    monkeypatch.setattr(operations.Convolution, "flops", property(inside))
    counted = counted_by_xla(first, step=False)
    assert operations.forward_flops(224, first) == pytest.approx(counted, rel=0.01)
    counted = counted_by_xla(first, step=True)
    assert operations.step_flops(224, frozen_blocks, kept=True) == pytest.approx(counted, rel=0.01)


def test_operations_of_fc1_and_fc2():
    assert operations.fully_connected_flops(224) == 2 * (25088 * 4096 + 4096 * 4096)


def test_a_device_is_known_by_its_name():
    assert operations.peak("NVIDIA H100 80GB HBM3") == 989e12
    assert operations.peak("NVIDIA H100 PCIe") == 756e12
    assert operations.peak("TPU v5 lite") == 197e12
    assert operations.peak("TPU v5") == 459e12
    assert operations.peak("NVIDIA L40S") == 362e12
    assert operations.peak("NVIDIA L40") == 181e12
    assert operations.peak("NVIDIA A100-SXM4-80GB") == 312e12
    for unknown in ("cpu", "NVIDIA RTX A1000", "NVIDIA GB200"):
        assert operations.peak(unknown) is None


def test_the_line_that_says_that_weights_are_read(tmp_path, capsys):
    pretrained.load(vgg16.VGG16, str(tiny.write_weights(tmp_path / "vgg16.h5")))
    assert cross_validation.READ.match(capsys.readouterr().out)


@pytest.mark.slow
def test_throughput(monkeypatch, tmp_path, capsys):
    """Of eleven batches, on the accelerators' path and with frozen blocks computed beforehand."""
    monkeypatch.setitem(BACKBONES, "vgg16", scaling_trial.SMALL)
    output = tmp_path / "found.json"
    flags = ["--size=32", "--batch=2", "--batches=11", "--epochs=1", "--freeze=block4"]
    found = throughput_benchmark.main([*flags, "--dispatch=accelerator", f"--output={output}"])
    assert json.loads(output.read_text()) == found
    assert found["dispatches an epoch, training"] == 4
    assert found["dispatches an epoch, predicting"] == 4  # three pictures of dev, and of train
    assert found["settings"]["precision"] == "float32"
    assert found["kept"]
    assert not found["streamed"]
    assert found["GFLOP a picture"] == operations.step_flops(32, 4, kept=True) / 1e9
    reached = found["GFLOP a picture"] / 1e3 * found["pictures a second"]
    assert found["utilisation"] == pytest.approx(reached / found["peak TFLOP/s"])
    assert found["milliseconds a step"] == pytest.approx(2000 / found["pictures a second"])
    assert 0 < found["input wait"] < 1
    compiling = found["seconds of the train step"]
    assert compiling["from the cache"] < compiling["compile"]
    assert found["peak memory"] > 1e8
    printed = capsys.readouterr().out
    assert re.search(r"dispatches an epoch +4 to train", printed)
    assert any(cross_validation.FIRST_EPOCH.match(line) for line in printed.splitlines())
    assert devices.batches_in_dispatch(11) == 1  # as it was


@pytest.mark.slow
def test_throughput_of_timelines(monkeypatch, tmp_path):
    monkeypatch.setitem(BACKBONES, "vgg16", scaling_trial.SMALL)
    flags = ["--system=ds_am_statistics", "--batch=2", "--batches=2", "--epochs=1"]
    output = f"--output={tmp_path / 'found.json'}"
    found = throughput_benchmark.main([*flags, "--freeze=block3", output])
    assert found["settings"]["size"] == "64 x 192"
    assert found["GFLOP a picture"] == 3 * operations.step_flops(64, 3, True, 4) / 1e9
    assert found["dispatches an epoch, predicting"] == 0  # no development split chooses an epoch
    speech = found["seconds of speech a second"]
    assert speech == pytest.approx(3.072 * found["pictures a second"])
    assert throughput_benchmark.main([*flags, "--freeze=block4", output])["GFLOP a picture"] == 0


def test_numbers_on_the_command_line_are_checked(capsys):
    with pytest.raises(SystemExit):
        throughput_benchmark.main(["--batch=0"])
    assert "'0' is not a whole number above 0" in capsys.readouterr().err
    with pytest.raises(ConfigError) as caught:
        throughput_benchmark.main(["--freeze=block9", "--size=32", "--batch=2", "--batches=1"])
    assert (caught.value.field, caught.value.value) == ("model.freeze", "block9")


def test_precision_and_dispatch_are_chosen():
    with throughput_benchmark.chosen("bfloat16", "accelerator"):
        assert devices.compute_dtype() == jnp.bfloat16
        assert devices.batches_in_dispatch(153) == 39
    with throughput_benchmark.chosen("auto", "auto"):
        assert devices.compute_dtype() == jnp.float32
        assert devices.batches_in_dispatch(153) == 1


@pytest.mark.slow
def test_kills(tmp_path):
    """A few of them, by either signal; the seed brings both kinds of moments."""
    output = tmp_path / "found.json"
    found = kills.main(["--kills", "6", "--seed", "3", f"--output={output}"])
    assert found["faults"] == []
    assert [one["signal"] for one in found["all"]] == ["SIGKILL", "SIGTERM"] * 3
    assert {one["moment"] for one in found["all"]} == {"any time", "a new file"}
    assert found["slowest to leave after SIGTERM, seconds"] < kills.PATIENCE
    assert json.loads(output.read_text()) == json.loads(json.dumps(found))


@pytest.mark.slow
def test_scaling(tmp_path):
    """On two simulated devices."""
    output = tmp_path / "found.json"
    scaling.main(["--devices", "2", "--small", f"--output={output}"])
    (trial,) = json.loads(output.read_text())["trials"]
    assert trial["devices"] == 2
    assert trial["folds"]["collectives"] == []
    (sums,) = scaling.gradient_sums(trial["batch"])
    assert sums["name"] == "all-reduce"
    assert sums["numbers"] == trial["batch"]["parameters"] + 1  # with the loss
    assert sums["bytes"] == 4 * sums["numbers"]
    for layout in ("folds", "batch"):
        own = trial[layout]
        assert own["folds"] == 3
        assert own["dispatches an epoch"] == devices.DISPATCHES
        first, last = (
            own[f"compilations until the {one} fold is done"] for one in ("first", "last")
        )
        assert 0 < first == last
        assert own["host seconds a dispatch"] > 0


def test_streaming(tmp_path):
    output = tmp_path / "found.json"
    flags = ["--pictures=300", "--large_pictures=20", "--batch=8", f"--folder={tmp_path}"]
    found = streaming.main([*flags, f"--output={output}"])
    assert json.loads(output.read_text()) == found
    for own, canvas, pictures in zip(found["corpora"], (32, 227), (300, 20), strict=True):
        assert (own["canvas"], own["pictures"]) == (canvas, pictures)
        assert own["streamed"]
        assert own["batches that differ"] == 0
        assert own["pictures a second"] > 0
        assert len(own["memory at each tenth"]) == 10
        config = streaming.create_config(canvas)
        stored, _ = streaming.load(config, pictures, tmp_path / str(canvas))  # as it was prepared
        assert own["sum of all pixels"] == stored.inputs[:].sum(dtype=np.int64)  # once each
    with pytest.raises(ValueError, match="holds 300 pictures, not 400: delete it"):
        streaming.main([*flags, "--pictures=400"])


@pytest.mark.slow
def test_preparing(tmp_path):
    output = tmp_path / "found.json"
    command = [sys.executable, "-m", "benchmarks.preparing", "--utterances=90"]
    done = subprocess.run(
        [*command, f"--output={output}"], cwd=measuring.ROOT, capture_output=True, text=True
    )
    assert json.loads(output.read_text())["utterances"] == 90, done.stderr
    assert done.returncode == 0 or "memory has grown" in done.stderr


def test_predicting(tmp_path, monkeypatch):
    monkeypatch.setitem(BACKBONES, "vgg16", scaling_trial.SMALL)
    output = tmp_path / "found.json"
    found = predicting.main(["--recordings=50", "--size=32", f"--output={output}"])
    assert json.loads(output.read_text()) == found
    assert found["recordings"] == 50
    assert 0 < found["ratio"] == found["seconds"]["alone"] / found["seconds"]["from files"]


def test_what_grows_is_found():
    steady = [5.0, 90.0] * 10 + [100.0, 102.0, 101.0] * 20
    assert abs(preparing.grown(steady)) < 3
    assert preparing.grown(list(np.linspace(0, 400, 50))) > 90
    rounds = [{"MiB": 1.0 * number} for number in range(42)]
    assert soak.growth(rounds, "MiB") == 20
    assert soak.growth(rounds[: soak.WARM] + [{"MiB": 3.0}] * 30, "MiB") == 0


def test_batches_that_differ_are_found(tmp_path):
    stored = generated.corpus(20, 32, 32)
    network = streaming.create_network(streaming.create_config(32))
    assert streaming.same_batches(network, stored, 8) == 0

    class Damaged:
        shape, dtype = stored.inputs.shape, stored.inputs.dtype

        def __len__(self):
            return len(stored.inputs)

        def __getitem__(self, rows):
            if np.ndim(rows) and len(rows) == 20:  # all, to be kept in memory
                return stored.inputs[rows]
            return stored.inputs[rows] * (np.asarray(rows) != 3)[..., None, None]

    damaged = streaming.Corpus("damaged", stored.utterances, Damaged(), stored.owners)
    assert streaming.same_batches(network, damaged, 8) == 1


def test_cross_validation(tmp_path, monkeypatch, capsys):
    script, output = tmp_path / "launch.py", tmp_path / "found.json"
    script.write_text(LAUNCH)
    monkeypatch.setattr(cross_validation, "LAUNCH", (sys.executable, str(script)))
    flags = [f"--corpora_dir={tmp_path}", "--folds=3", "--epochs=2", f"--output={output}"]
    found = cross_validation.main(flags)
    assert json.loads(output.read_text())["ratio"] == found["ratio"]
    assert found["same predictions"]
    assert found["one"][0]["training"] == 3.0
    assert [own["training"] for own in found["separate"]] == [1.0] * 3
    for own in found["one"] + found["separate"]:
        assert 0 < own["freeze"] < own["seconds"]
        total = sum(own[part] for part in ("start", "freeze", "training", "rest"))
        assert total == pytest.approx(own["seconds"])
        assert own["cpu"] > 0
    separate = sum(own["seconds"] for own in found["separate"])
    assert found["ratio"] == pytest.approx(found["one"][0]["seconds"] / separate)
    assert "3 folds of emomatch_spanish_db, real recordings" in capsys.readouterr().out
    script.write_text("print('no memory'); raise SystemExit(1)")
    with pytest.raises(RuntimeError, match="no memory"):
        cross_validation.main(flags)


def test_the_ratio_nears_one_as_folds_train_longer():
    one = cross_validation.Run(20, 20, start=1, freeze=2, training=15)
    separate = [cross_validation.Run(5, 5, start=1, freeze=2, training=1.5)] * 10
    assert one.rest == 2
    assert cross_validation.ratio(one, separate) == pytest.approx(20 / 50)
    assert cross_validation.ratio(one, separate, 10) == pytest.approx((20 + 9 * 17) / (50 + 9 * 17))


def test_convolutions_are_compared_layer_by_layer(tmp_path):
    names = [name for name, _ in convolutions.layers(224, 224)]
    assert len(names) == len(set(names)) == 9  # the others are of the same shapes
    flags = ["--height=4", "--width=4", "--rounds=1", "--batches=3", f"--output={tmp_path / 'x'}"]
    (layer,) = convolutions.main(flags)["layers"]
    assert (layer["layer"], layer["tiles"]) == ("block1_conv2", 3)
    assert min(layer["Winograd"], layer["plain"]) > 0


def test_convolutions_in_bfloat16_have_the_errors_of_their_products(monkeypatch, tmp_path):
    """A number's rounding has a root mean square of 0.2 %; a product's two make 0.3 %."""
    monkeypatch.setattr(bfloat16, "LAYERS", ((8, 32, 32),))
    flags = ["--batch=2", "--rounds=1", f"--output={tmp_path / 'x'}"]
    (layer,) = bfloat16.main(flags)["layers"]
    speeds, errors = zip(*layer["ways"].values(), strict=True)
    assert speeds[0] == 1
    assert min(speeds) > 0
    assert max(errors[:2]) < 1e-5
    assert errors[2:4] == pytest.approx((0.003, 0.003), rel=0.2)
    assert 0.01 < errors[4] < 0.04  # the transforms multiply it


def test_an_export_is_timed_weighed_and_compared(tmp_path, monkeypatch):
    graph = graphs.Graph()
    samples = graph.input("samples", np.float32, ("batch", "n"))
    graph.input("lengths", np.int32, ("batch",))
    graph.output("probabilities", graphs.total(samples, 1, keep=True), ("batch", 1))
    (tmp_path / "export_onnx").mkdir()
    content = graph.serialize("sum", "0", {})
    (tmp_path / "export_onnx" / "model.onnx").write_bytes(content)
    (tmp_path / "export_onnx" / "model.json").write_text('{"sample_rate": 8000}')
    found = exports.measure("onnx", tmp_path)
    assert found["size"] == len(content) / 1e6
    assert found["memory"] > 10
    timed = {f"{first}{n} s" for n in exports.SECONDS for first in ("", "first ")} | {"load"}
    assert set(found) == timed | {"size", "memory"}
    assert min(found[name] for name in timed) >= 0
    soundfile.write(tmp_path / "a.wav", np.repeat([[0.5, -0.25]], 10, axis=0).ravel(), 8000)

    class Model:  # its answer is the sum of 20 samples, and that of the other format is another
        card = {"sample_rate": 8000}  # noqa: RUF012

        def __init__(self, folder):
            self.more = 0.25 if folder.name == "export" else 0.0

        def __call__(self, samples, rate):
            assert rate == 8000
            return samples.sum(keepdims=True) + self.more

    monkeypatch.setattr(ds_jax, "load", Model)
    found = exports.distances(tmp_path, tmp_path / "run", [str(tmp_path / "a.wav")])
    assert found == pytest.approx({"stablehlo": 0.25, "onnx": 0.0}, abs=1e-5)
