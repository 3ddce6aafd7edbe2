"""--mode=features writes DeepSpectrum's tables, with the features of Keras and of DS-SVC."""

import csv
import io
import itertools
import shutil
import tracemalloc

import keras
import matplotlib
import numpy as np
import pytest
import soundfile
import tiny
from recordings import sound
from scipy.io import arff

from configs import deepspectrum
from ds_jax.commands import features
from ds_jax.data import recordings
from ds_jax.features import extract
from ds_jax.models import pretrained
from ds_jax.models.backbones import BACKBONES
from ds_jax.systems.deep_features import LayerFeatures


@pytest.fixture(scope="module")
def model():
    return keras.applications.VGG16(include_top=False, weights=None, input_shape=(32, 32, 3))


@pytest.fixture(scope="module")
def params(model):
    """Weights of the real VGG16's shapes, the same in Keras and here."""
    return tiny.he_scaled(model.layers)


@pytest.fixture(autouse=True)
def _given(params, monkeypatch):
    monkeypatch.setattr(pretrained, "load", lambda backbone, path, full: params)


def experiment(*layers):
    config = deepspectrum.get_config()
    config.model.layers = layers or ("block1_pool",)
    config.picture.canvas = config.picture.size = 32
    return config


NAMES = ("anger/a1.wav", "anger/a2.flac", "joy/j, 1.wav", "joy/sub/j 2.wav", "top.wav")


@pytest.fixture
def folder(tmp_path):
    for seed, name in enumerate(NAMES):
        sound(tmp_path / "in" / name, seed, 0.2 + 0.1 * seed)
    return tmp_path / "in"


def expected_of(folder, names, config, params, backbone=BACKBONES["vgg16"]):
    """The features of DS-SVC for all windows of some recordings."""
    settings = extract.settings(config)
    pictures = [window for name in names for window in extract.read(folder / name, settings)[1]]
    extractor = LayerFeatures(backbone, config.model.layers, settings, params)
    return extractor.compute(np.stack(pictures), None)


def table(output):
    """The header, the names, and the rest of each row."""
    header, *rows = csv.reader(io.StringIO(output.read_bytes().decode(), newline=""))
    return header, [row[0] for row in rows], [row[1:] for row in rows]


def table_of(config, arguments, output, *labels):
    features.run(config, arguments, output, *labels)
    return table(output)


def test_columns_are_deepspectrum_s(folder, tmp_path):
    header, names, rows = table_of(experiment(), [folder], tmp_path / "out.csv")
    assert header == ["name", *(f"neuron_{index}" for index in range(64)), "class"]
    assert names == list(NAMES)
    assert [row[-1] for row in rows] == ["anger", "anger", "joy", "sub", "in"]
    header, _, rows = table_of(experiment(), [folder], tmp_path / "out.csv", "none")
    assert header[-1] == "neuron_63"
    assert {len(row) for row in rows} == {64}


def test_features_equal_those_of_keras(folder, tmp_path, model):
    """The pictures go through matplotlib's colours and Keras' layers."""
    config = experiment("block2_pool", "block5_pool")
    header, _, rows = table_of(config, [folder], tmp_path / "out.csv", "none")
    assert len(header) == 1 + 128 + 512
    settings = extract.settings(config)
    pictures = [extract.read(folder / name, settings)[1][0] for name in NAMES]
    colours = np.round(255 * matplotlib.colormaps["viridis"](np.stack(pictures))[..., 2::-1])
    outputs = [model.get_layer(name).output for name in config.model.layers]
    pools = keras.Model(model.input, outputs)(colours.astype(np.float32))
    expected = np.concatenate([np.asarray(pool).mean(axis=(1, 2)) for pool in pools], axis=1)
    assert expected.std() > 1
    np.testing.assert_allclose(np.asarray(rows, float), expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("preprocessing", ["deepspectrum", "caffe"])
def test_features_equal_those_of_ds_svc(folder, tmp_path, params, preprocessing):
    config = experiment("block4_pool", "block3_pool")  # in the order asked for
    config.picture.preprocessing, config.picture.colour_map = preprocessing, "magma"
    config.picture.canvas = 48
    _, _, rows = table_of(config, [folder], tmp_path / "out.csv", "none")
    expected = expected_of(folder, NAMES, config, params)
    np.testing.assert_allclose(np.asarray(rows, np.float32), expected, rtol=1e-5)


def test_fc2_is_the_default_layer(folder, tmp_path, monkeypatch):
    monkeypatch.setitem(BACKBONES, "vgg16", tiny.NARROW)
    calls, params = [], tiny.pretrained(side=7)
    monkeypatch.setattr(
        pretrained, "load", lambda backbone, path, full: calls.append(full) or params
    )
    config = deepspectrum.get_config()
    _, _, rows = table_of(config, [folder / "top.wav"], tmp_path / "out.csv", "none")
    assert calls == [True]
    expected = expected_of(folder, ["top.wav"], config, params, tiny.NARROW)
    assert (expected > 0).any()
    np.testing.assert_allclose(np.asarray(rows, np.float32), expected, rtol=1e-5)


def test_windows_have_time_stamps(folder, tmp_path, params):
    config = experiment()
    config.picture.window, config.picture.window_hop = 0.2, 0.1
    header, names, rows = table_of(config, [folder], tmp_path / "out.csv")
    assert header[:3] == ["name", "timeStamp", "neuron_0"]
    counts = [len(list(group)) for _, group in itertools.groupby(names)]
    assert counts == [2, 3, 4, 5, 6]
    assert [row[0] for row in rows[-6:]] == ["0", "0.1", "0.2", "0.3", "0.4", "0.5"]
    expected = expected_of(folder, ["top.wav"], config, params)
    found = np.asarray([row[1:-1] for row in rows[-6:]], np.float32)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_numbers_come_back_as_they_were(folder, tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    numbers = rng.normal(size=(5, 64)) * 10.0 ** rng.integers(-9, 9, (5, 64))
    numbers = numbers.astype(np.float32)
    monkeypatch.setattr(LayerFeatures, "create_extractor", lambda *_: lambda *_: lambda: numbers)
    _, _, rows = table_of(experiment(), [folder], tmp_path / "out.csv", "none")
    np.testing.assert_array_equal(np.asarray(rows, np.float32), numbers)


def test_arff_is_read_by_scipy_as_the_csv_is(folder, tmp_path):
    config = experiment()
    config.picture.window = 0.2
    header, names, rows = table_of(config, [folder], tmp_path / "out.csv")
    features.run(config, [folder], tmp_path / "out.arff")
    data, meta = arff.loadarff(tmp_path / "out.arff")
    assert meta.names() == header
    assert meta.types() == ["nominal", *["numeric"] * 65, "nominal"]
    assert meta["class"][1] == ("anger", "in", "joy", "sub")
    assert [one.decode() for one in data["name"]] == names
    assert [one.decode() for one in data["class"]] == [row[-1] for row in rows]
    numbers = np.asarray([data[name] for name in header[1:-1]]).T
    np.testing.assert_array_equal(numbers, np.asarray([row[:-1] for row in rows], float))


HOSTILE = (
    *("niño.wav", 'say "hi".wav', "it's.wav", "a,b.wav", "50%.wav", "{x}.wav", "two\nlines.wav"),
    "carriage\rreturn.wav",
)


def test_hostile_names_survive(tmp_path):
    for name in HOSTILE:
        sound(tmp_path / "in" / "el niño" / name)
    _, names, rows = table_of(experiment(), [tmp_path / "in"], tmp_path / "out.csv")
    assert names == sorted(f"el niño/{name}" for name in HOSTILE)
    assert {row[-1] for row in rows} == {"el niño"}
    features.run(experiment(), [tmp_path / "in"], tmp_path / "out.arff")
    lines = (tmp_path / "out.arff").read_text(encoding="utf-8").splitlines()
    data = lines[lines.index("@data") + 1 :]
    assert len(data) == len(HOSTILE)  # a row is a line
    for shown in ("'el niño/niño.wav',", '"el niño/it\'s.wav",', "'el niño/a,b.wav',"):
        assert sum(line.startswith(shown) for line in data) == 1
        assert shown.rstrip(",") in lines[2]
    assert all(line.endswith(",'el niño'") for line in data)


def test_a_table_labels_by_name(folder, tmp_path, capsys):
    labels = tmp_path / "labels.tsv"
    labels.write_text(
        "\ufefffile\temotion\tarousal\n"
        "anger/a1.wav\tanger\t0.9\n./joy/j, 1.wav\tgreat joy\t-1e-1\nnowhere.wav\tnone\t3\n"
    )
    header, names, rows = table_of(experiment(), [folder], tmp_path / "out.csv", str(labels))
    assert header[-2:] == ["emotion", "arousal"]
    assert names == ["anger/a1.wav", "joy/j, 1.wav"]  # the others are left out, and named
    assert [row[-2:] for row in rows] == [["anger", "0.9"], ["great joy", "-1e-1"]]
    printed = capsys.readouterr().out
    assert "3 recordings" in printed
    assert "joy/sub/j 2.wav" in printed
    assert "nowhere.wav" in printed
    features.run(experiment(), [folder], tmp_path / "out.arff", str(labels))
    data, meta = arff.loadarff(tmp_path / "out.arff")
    assert meta.types()[-2:] == ["nominal", "numeric"]
    assert meta["emotion"][1] == ("anger", "great joy", "none")
    np.testing.assert_array_equal(data["arousal"], [0.9, -0.1])


@pytest.mark.parametrize(
    "content",
    [
        "emotion\tFile Name\nanger\tanger/a1.wav\njoy\tjoy/j, 1.wav\n",
        ";file;emotion\n0;anger/a1.wav;anger\n1;joy/j, 1.wav;joy\n",
    ],
)
def test_the_columns_of_a_table_of_labels_may_stand_anywhere(folder, tmp_path, content):
    (tmp_path / "labels.csv").write_text(content)
    labels = str(tmp_path / "labels.csv")
    header, names, rows = table_of(experiment(), [folder], tmp_path / "out.csv", labels)
    assert (header[-1], header[-2]) == ("emotion", "neuron_63")
    assert names == ["anger/a1.wav", "joy/j, 1.wav"]
    assert [row[-1] for row in rows] == ["anger", "joy"]


@pytest.mark.parametrize(
    ("content", "place"),
    [
        ("file,label\na.wav,1\na.wav,2\n", r", line 3: 'a\.wav'"),
        ("file,label\na.wav\n", ", line 2: .*missing"),
        ("file,label\n,joy\n", ", line 2: .*missing"),
        ("file\na.wav\n", ", line 1: .*one or more of labels"),
        ("", ", line 1: "),
        ("file,label\nbad.wav,joy\n", " .*5 recordings.*'bad.wav'"),
    ],
)
def test_an_impossible_table_is_an_error_that_names_the_place(folder, tmp_path, content, place):
    labels = tmp_path / "labels.csv"
    labels.write_text(content)
    with pytest.raises(ValueError, match=rf"labels\.csv{place}"):
        features.run(experiment(), [folder], tmp_path / "out.csv", str(labels))
    assert not (tmp_path / "out.csv").exists()


def test_unusable_recordings_are_named_and_the_others_are_written(folder, tmp_path):
    (folder / "joy" / "text.wav").write_text("no audio")
    soundfile.write(folder / "silence.wav", np.zeros(16_000), 16_000)
    with pytest.raises(ValueError, match=r"^2 ") as error:
        features.run(experiment(), [folder], tmp_path / "out.csv")
    assert "text.wav" in str(error.value)
    assert "silence.wav" in str(error.value)
    assert table(tmp_path / "out.csv")[1] == list(NAMES)


def test_without_a_usable_recording_there_is_no_file(tmp_path):
    (tmp_path / "in").mkdir()
    with pytest.raises(ValueError, match="in holds no audio"):
        features.run(experiment(), [tmp_path / "in"], tmp_path / "out.csv")
    (tmp_path / "in" / "text.wav").write_text("no audio")
    with pytest.raises(ValueError, match=r"text\.wav"):
        features.run(experiment(), [tmp_path / "in"], tmp_path / "out.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_an_interruption_leaves_the_file_from_before(folder, tmp_path, monkeypatch):
    (tmp_path / "out.csv").write_text("before")

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(LayerFeatures, "create_extractor", lambda *_: lambda *_: interrupt)
    with pytest.raises(KeyboardInterrupt):
        features.run(experiment(), [folder], tmp_path / "out.csv")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out.csv"]
    assert (tmp_path / "out.csv").read_text() == "before"


@pytest.mark.parametrize(
    ("layer", "output", "message"),
    [
        ("block1_pool", "out.txt", "--output"),
        ("block1_pol", "out.csv", "block1_pool"),
        ("fc2", "out.csv", r"picture\.size"),
    ],
)
def test_an_impossible_layer_or_output_is_an_error_before_any_work(
    folder, tmp_path, layer, output, message
):
    with pytest.raises(ValueError, match=message):
        features.run(experiment(layer), [folder], tmp_path / output)
    assert not (tmp_path / output).exists()


def test_impossible_requests_are_refused_before_any_work(folder, tmp_path):
    out = tmp_path / "out.csv"
    with pytest.raises(ValueError, match="give recordings"):
        features.run(experiment(), [], out)
    with pytest.raises(FileNotFoundError, match=r"--labels.* column of the recordings' names"):
        features.run(experiment(), [folder], out, "labels.csv")
    config = experiment()
    del config.picture
    with pytest.raises(ValueError, match="configs/deepspectrum"):
        features.run(config, [folder], out)
    shutil.copytree(folder, tmp_path / "other")
    with pytest.raises(ValueError, match=r"'anger/a1\.wav'"):
        features.run(experiment(), [folder, tmp_path / "other"], out)
    assert not out.exists()


def test_many_recordings_need_the_memory_of_a_few(tmp_path, monkeypatch):
    """All pictures would be 41 MB."""
    sound(tmp_path / "in" / "0000.wav")
    for number in range(1, 800):
        (tmp_path / "in" / f"{number:04}.wav").symlink_to("0000.wav")
    canvas = np.zeros((227, 227), np.uint8)
    monkeypatch.setattr(
        recordings.extract, "windows", lambda *_: iter([(1.0, 0.0, 1.0, 16_000, canvas.copy())])
    )
    monkeypatch.setattr(
        LayerFeatures,
        "create_extractor",
        lambda *_: lambda x, _: lambda: np.ones((len(x), 512), np.float32),
    )
    tracemalloc.start()
    features.run(experiment(), [tmp_path / "in"], tmp_path / "out.csv")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(table(tmp_path / "out.csv")[1]) == 800
    assert peak < 26e6
