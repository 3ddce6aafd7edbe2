"""The fields of every experiment; the other configs start from these and change a few."""

import functools
from collections.abc import Callable
from pathlib import Path

from ml_collections import ConfigDict

# Six folds of RAVDESS, four actors each (EmoBox, Ma et al. 2024).
EMOBOX_FOLDS = str(Path(__file__).parents[1] / "datasets" / "ravdess" / "emobox_folds.csv")


def get_config() -> ConfigDict:
    """Returns DS-AM as in the paper, with a decision where the paper leaves one open."""
    config = ConfigDict()
    config.system = "ds_am"  # a function `use_...` below changes a config to another system
    # One of datasets.prepare.KNOWN, or a folder below --corpora_dir that has a manifest.
    config.corpus = "elra_s0329"
    config.eval_on = ()  # more corpora to test the trained models on
    # What is told apart, in the order of the columns of predictions.csv.
    config.classes = ("ANGER", "DISGUST", "FEAR", "JOY", "NEUTRAL", "SADNESS", "SURPRISE")
    # The class of a label that no name of a class or emotion says, such as "3=JOY"; "calm=" leaves
    # utterances of this label out.
    config.label_map = ()
    config.seed = 0  # of the seeds below, unless they are given, of inner folds and boosted trees
    # Each random draw of training has its seed; folds.seed deals the folds.
    config.seeds = ConfigDict()
    config.seeds.initialisation = config.get_oneway_ref("seed")  # values of new layers
    config.seeds.order = config.get_oneway_ref("seed")  # order of an epoch's batches
    config.seeds.dropout = config.get_oneway_ref("seed")
    config.seeds.augmentation = config.get_oneway_ref("seed")  # of `use_ds_am_statistics` alone
    # The split that chooses the epoch; "test" leaks, and is what we assume of the paper, which does
    # not say; "none" chooses nothing.
    config.select_on = "dev"
    # "speaker": recordings are standardised by all unlabelled recordings of their speaker, tested
    # ones too, and models answer for somebody new after enrolment: a protocol of its own.
    config.adapt = "none"
    # How folds share devices: "folds" trains one fold on each device, "batch" one fold on all of
    # them, and "auto" one on each as long as there are enough. The results are the same.
    config.parallel = "auto"
    config.weights = ""  # file of the backbone's ImageNet weights; empty: cached or published ones
    config.synthetic = False  # generate the two Spanish corpora; reports say so

    # Before and after the speech is cut off what lies this many dB below the loudest 25 ms of the
    # recording, for pictures and features alike; 0: nothing.
    config.trim = 0.0
    config.channel = "mix"  # the mean of a recording's channels; or "left" or "right", one of two
    config.raw_rate = 16_000  # Hz of headerless recordings (.l16, .raw, .pcm)
    # Variants of each training recording of the corpus, on which models are trained too: any of
    # "speed=1.1" (times as fast), "pitch=2" (semitones higher), "tract=1.1" (times as short a vocal
    # tract) and "noise=20" (dB below the recording). Auxiliary recordings have none.
    config.variants = ()
    # More corpora whose recordings classifiers are fitted on too, and which are in no fold: those
    # of "ravdess=0.3" weigh together 0.3 times as much as the training split.
    config.auxiliary = ()

    # From waveform to the network's input: ds_jax.features.spectrogram.PictureSettings.
    config.picture = ConfigDict()
    config.picture.sample_rate = 16_000  # Hz; 0 keeps each recording's own
    config.picture.mode = "mel"  # or "spectrogram", "chroma"
    # Or "plain": rows of equal height; or "timeline": as wide as the recording is long.
    config.picture.layout = "deepspectrum"
    config.picture.n_fft = 0  # samples; 0: the next power of two of 25 ms
    config.picture.hop = 0  # samples; 0: half of n_fft
    config.picture.mel_bands = 128
    config.picture.fmin = 0.0  # Hz
    config.picture.fmax = 0.0  # Hz; 0: half the sample rate
    config.picture.floor_db = 0.0  # dB below the loudest cell; 0: none
    # Whether a timeline shows each band's difference to its mean over time.
    config.picture.subtract_band_means = False
    config.picture.window = 0.0  # seconds of a picture; 0: the whole recording
    config.picture.window_hop = 0.0  # seconds between windows; 0: one after the other
    config.picture.canvas = 227  # pixels drawn and stored (DeepSpectrum)
    config.picture.colour_map = "viridis"
    # Pixels that the network sees; fewer are faster. 0: those that the backbone was trained on.
    config.picture.size = 224
    # BGR, centred, as Keras trained VGG16; "deepspectrum": as DeepSpectrum feeds a network; others
    # of Keras' networks take "rgb", "tf" or "torch", see ds_jax.models.keras_backbone.
    config.picture.preprocessing = "caffe"

    config.folds = ConfigDict()
    config.folds.protocol = "stratified"  # see ds_jax.data.folds.PROTOCOLS
    config.folds.count = 10
    config.folds.seed = 0
    config.folds.file = ""  # a folds.json or a table of folds, in place of a protocol

    config.model = ConfigDict()
    config.model.backbone = "vgg16"  # or a network of ds_jax.models.keras_backbone
    config.model.gates = ("block4_pool", "block5_pool")  # the last two blocks (paper, section 3.2)
    config.model.merging = "multi_loss"  # or "early_fusion"
    config.model.loss_weights = (1.0, 0.8)  # of the heads (Gorriz et al., 2019)
    config.model.freeze = ""  # the highest block that keeps its ImageNet weights, e.g. "block3"

    config.train = ConfigDict()
    config.train.batch_size = 32  # over all devices together
    config.train.epochs = 40  # at most
    config.train.pretrained_learning_rate = 5e-5  # Adam (Gorriz et al.'s code)
    config.train.new_learning_rate = 5e-4
    config.train.plateau_patience = 2  # epochs without gain before the rates fall to a tenth
    config.train.stop_patience = 5  # epochs without gain before training ends
    return config


def use_timelines(config: ConfigDict) -> None:
    """Changes a config's pictures to timelines: a pixel a frame, and a row a mel band."""
    config.picture.layout = "timeline"
    config.picture.mel_bands = 64
    config.picture.n_fft, config.picture.hop = 1024, 256  # 64 and 16 ms: harmonics are told apart
    config.picture.floor_db = 80.0
    config.picture.colour_map = "gray"


def use_ds_am_statistics(config: ConfigDict) -> None:
    """Changes a config to DS-AM's second form: gated statistics of pictures of any width."""
    use_timelines(config)
    config.system = "ds_am_statistics"
    config.select_on = "none"  # the last of a fixed number of epochs counts; "dev" chooses one
    # Generated pictures for each training recording of a fold, on which its model is trained too.
    # They are drawn by a generator that has learnt from the fold's training recordings alone.
    config.generate = ConfigDict()
    config.generate.share = 0.0  # 0: none
    config.generate.steps = 1000  # batches of the generator's training
    config.seeds.generation = config.get_oneway_ref("seed")
    config.model = ConfigDict()
    config.model.backbone = "vgg16"
    config.model.heads = ("block3_pool", "block4_pool")
    config.model.gate = True  # whether a gate weights frames and bands
    config.model.dropout = 0.5  # of the statistics
    config.model.loss_weights = (1.0, 0.8)
    config.model.freeze = "block4"
    config.train = ConfigDict()
    config.train.batch_size = 32  # over all devices together
    config.train.epochs = 15
    # AdamW; rates rise over a tenth of the steps, and then fall to 0 as a cosine.
    config.train.pretrained_learning_rate = 1e-4  # of blocks that are not frozen
    config.train.new_learning_rate = 4e-3
    config.train.weight_decay = 0.01
    config.train.label_smoothing = 0.1
    # A step crops at least this share of a recording, but never more than 3.07 s,
    config.train.least_share = 0.6
    config.train.most_hidden = 0.3  # and hides up to this share of its time and of its frequencies.
    # Both parameters of the beta distribution by which what frozen blocks make is mixed; 0: none.
    config.train.mixup = 0.0


def use_ensemble(config: ConfigDict, merging: str = "mean", **members: ConfigDict) -> None:
    """Changes a config to several experiments on the same corpus and folds.

    Args:
        config: The config, whose corpus, classes, folds, weights and so on become the members'.
        merging: How they answer together, see below.
        **members: The experiments, each by its name.
    """
    choosing = [member.select_on for member in members.values() if _is_trained(member)]
    config.system, config.select_on = "ensemble", (choosing or ["dev"])[0]
    for name in ("seeds", "parallel", "picture", "model", "train"):
        del config[name]
    # How members answer together: by the "mean" of their probabilities, or, of ridges, "kernels":
    # by one ridge on all that they read.
    config.merging = merging
    # Of "kernels" the member that may weigh more than each other: inner folds choose how much more.
    config.emphasis = ""
    config.members = ConfigDict()
    for name, member in members.items():
        _share(config, member)
        config.members[name] = member


def _is_trained(config: ConfigDict) -> bool:
    """Tells whether a config is of a network, or of an ensemble with one."""
    return "train" in config or any(map(_is_trained, config.get("members", {}).values()))


def _share(config: ConfigDict, member: ConfigDict) -> None:
    """Lets the members of an ensemble follow its fields, and those of an ensemble among them."""
    own = {"system", "seed", "select_on", "eval_on", "folds", "merging", "emphasis"}
    if config.merging == "mean":
        own.add("auxiliary")  # members that are averaged may have heard other corpora
    if member.get("model", {}).get("backbone", "vgg16") != "vgg16":
        own.add("weights")  # a file holds one network
    for name in {*config} & {*member} - own:
        if name != "members":
            member[name] = config.get_ref(name)
    member.folds = config.folds
    for part in member.get("members", {}).values():
        _share(config, part)


def use_ds_am_best(config: ConfigDict, seeds: int = 3) -> None:
    """Changes a config to DS-AM's second form on two pictures, with up to three seeds of each."""
    members = {}
    for picture in ("timeline", "deviations"):
        for number in range(seeds):
            member = members[f"{picture}_{number}"] = get_config()
            use_ds_am_statistics(member)
            member.picture.subtract_band_means = picture == "deviations"
            member.seed = config.get_oneway_ref("seed") * 3 + number
    use_ensemble(config, **members)


def use_joined_ridges(config: ConfigDict, *features: str) -> None:
    """Changes a config to one ridge on two pictures and on sets of features.

    Of these "embeddings", those of Smart Turn, may weigh more than others.
    """
    members = {picture: get_config() for picture in ("timeline", "deviations")}
    for picture, member in members.items():
        use_ds_ridge(member)
        member.picture.subtract_band_means = picture == "deviations"
    for name in features:
        members[name] = get_config()
        use_ridge(members[name], name)
        if name == "embeddings":
            use_smart_turn(members[name])
    for member in members.values():
        member.seed = config.get_oneway_ref("seed")
        member.model.costs = (3.0,)  # which scored best on EmoDB and EMOVO
    use_ensemble(config, "kernels", **members)
    config.emphasis = "embeddings" if "embeddings" in features else ""


def use_smart_turn(config: ConfigDict) -> None:
    """Changes a config on embeddings to Smart Turn's middle layer, which no score has chosen."""
    config.embeddings.model, config.embeddings.layer = "smart-turn-v3.2", 2


def use_ds_am_fused(config: ConfigDict, *features: str) -> None:
    """Changes a config to the mean of DS-AM's best and of one ridge on its pictures and features.

    Args:
        config: The config.
        *features: More that the ridge reads, see `use_joined_ridges`.
    """
    members = {name: get_config() for name in ("networks", "ridge")}
    for member in members.values():
        member.seed = config.get_oneway_ref("seed")
    use_ds_am_best(members["networks"])
    use_joined_ridges(members["ridge"], *features)
    use_ensemble(config, **members)


def use_ds_fc(config: ConfigDict) -> None:
    """Changes a config to DS-FC: VGG16 fine-tuned under a fully connected head."""
    config.system = "ds_fc"
    config.model = ConfigDict()
    config.model.backbone = "vgg16"
    config.model.head = "fc"  # 4096-4096-7, needs the 553 MB weights; "gap": mean over positions
    config.model.dropout = 0.5  # after fc1 and fc2 (Simonyan and Zisserman, 2015, section 3.1)
    config.model.freeze = ""


def use_ds_svc(config: ConfigDict) -> None:
    """Changes a config to DS-SVC: a support vector classifier on VGG16's features."""
    config.system = "ds_svc"
    config.picture.preprocessing = "deepspectrum"
    config.model = ConfigDict()
    config.model.backbone = "vgg16"
    # The features are these layers' means over positions. They were chosen on EmoDB, where inner
    # folds score lower with block5_pool as well. ("fc2",) is DeepSpectrum's layer, and needs the
    # 553 MB weights.
    config.model.layers = ("block3_pool", "block4_pool")
    _use_svc_model(config, "linear")
    _without_training(config)


def use_ds_ridge(config: ConfigDict) -> None:
    """Changes a config to a class-balanced kernel ridge on what DS-AM's second form reads."""
    use_timelines(config)
    config.system = "ds_ridge"
    config.model = ConfigDict()
    config.model.backbone = "vgg16"
    config.model.layers = ("block3_pool", "block4_pool")
    # Of their channels: "mean", "statistics" (mean and standard deviation), or "rows" (the mean
    # over time of each row of frequencies).
    config.model.pooling = "statistics"
    _use_ridge_model(config)
    _without_training(config)


def use_ridge(config: ConfigDict, features: str) -> None:
    """Changes a config to a class-balanced kernel ridge on a set of features."""
    _use_features(config, "ridge", features)
    _use_ridge_model(config)
    _without_training(config)


def use_mlr(config: ConfigDict, features: str) -> None:
    """Changes a config to multivariate linear regression on a set of features."""
    _use_features(config, "mlr", features)
    _without_training(config)


def use_svc(config: ConfigDict, features: str, kernel: str) -> None:
    """Changes a config to a support vector classifier on a set of features."""
    _use_features(config, "svc", features)
    _use_svc_model(config, kernel)
    _without_training(config)


def use_xgboost(config: ConfigDict, features: str) -> None:
    """Changes a config to gradient-boosted trees on a set of features."""
    _use_features(config, "xgboost", features)
    config.model.trees = 200
    config.model.depth = 6  # levels of a tree (XGBoost's default)
    config.model.learning_rate = 0.1
    # The share of the features that each tree may use, drawn for each tree.
    config.model.column_share = 0.1 if features == "compare" else 1.0
    # The bins of a feature's histogram. XGBoost's default of 256 takes eight times as long on the
    # 6,373 features of ComParE.
    config.model.bins = 32
    _without_training(config)


def use_lstm(config: ConfigDict, features: str) -> None:
    """Changes a config to two LSTM layers on a set of features."""
    _use_features(config, "lstm", features)
    config.model.units = (128, 128)  # sizes of the LSTM layers
    config.model.dense_units = 64
    _use_new_layers_alone(config)


def use_ffnn(config: ConfigDict, features: str) -> None:
    """Changes a config to a feed-forward network on a set of features."""
    _use_features(config, "ffnn", features)
    config.model.units = (256, 256)
    config.model.dropout = 0.5
    _use_new_layers_alone(config)


def _use_features(config: ConfigDict, system: str, features: str) -> None:
    config.system = system
    config.features = features  # one of ds_jax.features.extract.SETS, in place of a picture
    # Of "embeddings", and of no other set: a speech model, of a layer of which the mean and the
    # deviation over time are taken.
    config.embeddings = ConfigDict()
    # A folder, an ONNX file, a name on the Hugging Face Hub, such as "microsoft/wavlm-large", or
    # "smart-turn-v3.2".
    config.embeddings.model = ""
    # 1 is what the first layer gives, and 0 what it reads; of an ONNX file an output, from 0.
    config.embeddings.layer = 0
    # Of the model's files, and the number of features; empty and 0: as found, and noted here.
    config.embeddings.sha256 = ""
    config.embeddings.size = 0
    config.model = ConfigDict()
    del config.picture
    del config.weights


def _use_svc_model(config: ConfigDict, kernel: str) -> None:
    costs = {
        "linear": (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0),
        "rbf": (0.01, 0.1, 1.0, 10.0, 100.0, 1000.0),
    }
    config.model.kernel = kernel
    config.model.costs = costs[kernel]  # C is chosen among these within the training set
    config.model.scaling = "standardised"  # by the training set's mean and deviation; or "none"


def _use_ridge_model(config: ConfigDict) -> None:
    config.model.kernel = "linear"
    config.model.costs = (0.3, 1.0, 3.0, 10.0, 30.0)  # one over the penalty, as C above
    config.model.scaling = "standardised"


def _without_training(config: ConfigDict) -> None:
    del config.seeds
    del config.train
    del config.parallel


def _use_new_layers_alone(config: ConfigDict) -> None:
    del config.train.pretrained_learning_rate
    config.train.new_learning_rate = 1e-3
    config.train.epochs = 100
    config.train.plateau_patience = 5
    config.train.stop_patience = 10


def _schema(use: Callable[..., None], **options: str) -> ConfigDict:
    config = get_config()
    use(config, **options)
    return config


# For each system a function that returns its fields, each with a value of its type.
SCHEMAS = {
    "ds_am": get_config,
    "ds_am_statistics": functools.partial(_schema, use_ds_am_statistics),
    "ensemble": functools.partial(_schema, use_ds_am_best),
    "ds_fc": functools.partial(_schema, use_ds_fc),
    "ds_svc": functools.partial(_schema, use_ds_svc),
    "ds_ridge": functools.partial(_schema, use_ds_ridge),
    "mlr": functools.partial(_schema, use_mlr, features="mfcc"),
    "svc": functools.partial(_schema, use_svc, features="mfcc", kernel="linear"),
    "ridge": functools.partial(_schema, use_ridge, features="mfcc"),
    "xgboost": functools.partial(_schema, use_xgboost, features="mfcc"),
    "lstm": functools.partial(_schema, use_lstm, features="mfcc"),
    "ffnn": functools.partial(_schema, use_ffnn, features="mfcc"),
}
