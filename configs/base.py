"""The fields of every experiment; the other configs start from these and change a few."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    """DS-AM as in the paper, with its open points decided; the corpus is the variant's to name."""
    config = ml_collections.ConfigDict()
    config.system = "ds_am"  # "ds_fc" by `use_ds_fc`
    # One of datasets.prepare.KNOWN, or a folder below --corpora_dir that has a manifest.
    config.corpus = "elra_s0329"
    config.eval_on = ()  # corpora that the trained models are tested on as well
    config.seed = 0  # of new layers, of the order of batches and of dropout
    config.select_on = "dev"  # who chooses the epoch; "test" is the paper's way, and leaks
    config.weights = ""  # VGG16's ImageNet weights; empty: the cache, else the published ones
    config.synthetic = False  # generate the two Spanish corpora first; reports say so

    # From waveform to the network's input: ds_jax.picture.PictureSettings.
    config.picture = ml_collections.ConfigDict()
    config.picture.sample_rate = 16_000  # Hz; 0 keeps each recording's own
    config.picture.mode = "mel"  # or "spectrogram", "chroma"
    config.picture.layout = "deepspectrum"  # or "plain": rows of equal height
    config.picture.n_fft = 0  # samples; 0: the next power of two of 25 ms
    config.picture.hop = 0  # samples; 0: half of n_fft
    config.picture.mel_bands = 128
    config.picture.fmin = 0.0  # Hz
    config.picture.fmax = 0.0  # Hz; 0: half the sample rate
    config.picture.floor_db = 0.0  # dB below the loudest cell; 0: none
    config.picture.window = 0.0  # seconds of a picture; 0: the whole recording
    config.picture.window_hop = 0.0  # seconds between windows; 0: one after the other
    config.picture.canvas = 227  # pixels drawn and stored (DeepSpectrum)
    config.picture.colour_map = "viridis"
    config.picture.size = 224  # pixels that the network sees (VGG16); fewer are faster
    config.picture.preprocessing = "caffe"  # BGR, centred; "deepspectrum": BGR, not centred

    config.folds = ml_collections.ConfigDict()
    config.folds.protocol = "stratified"  # see ds_jax.folds.PROTOCOLS
    config.folds.count = 10
    config.folds.seed = 0
    config.folds.file = ""  # a folds.json to use as it is, in place of a protocol

    config.model = ml_collections.ConfigDict()
    config.model.gates = ("block4_pool", "block5_pool")  # the last two blocks (paper, section 3.2)
    config.model.merging = "multi_loss"  # or "early_fusion"
    config.model.loss_weights = (1.0, 0.8)  # of the heads (Gorriz et al., 2019)
    config.model.freeze = ""  # the highest block that keeps its ImageNet weights, e.g. "block3"

    config.train = ml_collections.ConfigDict()
    config.train.batch_size = 32  # over all devices together
    config.train.epochs = 40  # at most
    config.train.pretrained_learning_rate = 5e-5  # Adam (Gorriz et al.'s code)
    config.train.new_learning_rate = 5e-4
    config.train.plateau_patience = 2  # epochs without gain before the rates fall to a tenth
    config.train.stop_patience = 5  # epochs without gain before training ends
    return config


def use_ds_fc(config: ml_collections.ConfigDict) -> None:
    """Changes a config to DS-FC: VGG16 fine-tuned under a fully connected head."""
    config.system = "ds_fc"
    config.model = ml_collections.ConfigDict()
    config.model.head = "fc"  # 4096-4096-7, needs the 553 MB weights; "gap": mean over positions
    config.model.dropout = 0.5  # after fc1 and fc2 (Simonyan and Zisserman, 2015, section 3.1)
    config.model.freeze = ""
