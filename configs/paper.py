"""All tables of the paper in one run: its numbers next to those of this program.

    python launch.py --config=configs/paper.py

runs each system of tables 1 to 4 and the cross-corpus experiment of table 7, under the paper's
protocol and under a clean one, and writes runs/paper/paper.html and paper.json after each cell.
Cells that were run before are not run again, a missing corpus leaves its cells empty, and a cell
that fails says why. With open corpora in place of the two licensed ones, on two cores:

    python launch.py --config=configs/paper.py --workdir=runs/paper_open \
        --config.elra=emovo --config.emomatch=emodb --config.folds.count=5 \
        --config.picture.size=128 --config.model.freeze=block4 --config.model.head=gap

The cells are the other configs of this folder. Every field of this config but system, elra,
emomatch and rivals overrides the same field of each cell that has it; an empty, zero or False one
does not. `rivals` adds rows that the paper has not: other configs of this folder, such as
--config.rivals="('embeddings_svc','ds_am_best')", or a config of one's own there on another
backbone, are run on both corpora, in the folds of the others and under both protocols, and stand in
table 3 (classifiers) or 4 (networks). A rival keeps the picture, model and train of its config and,
on another backbone than VGG16, its weights.
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    """Returns the experiment."""
    config = ml_collections.ConfigDict()
    config.system = "paper"
    config.elra = "elra_s0329"  # the corpus in ELRA-S0329's place
    config.emomatch = "emomatch_spanish_db"  # the corpus in EmoMatchSpanishDB's place
    config.rivals = ()  # names of further configs, which the paper has not

    config.synthetic = False  # generate both corpora first; the reports say so
    config.seed = 0
    config.parallel = ""  # folds on devices, see configs/base.py
    config.weights = ""  # VGG16's ImageNet weights

    config.folds = ml_collections.ConfigDict()
    config.folds.count = 0
    config.folds.seed = 0

    config.picture = ml_collections.ConfigDict()
    config.picture.size = 0  # pixels; 224 unless given

    config.model = ml_collections.ConfigDict()
    config.model.freeze = ""
    config.model.layers = ()  # of DS-SVC: ("fc2",) is the paper's, and needs the 553 MB weights
    config.model.head = ""  # of DS-FC: "fc" needs the 553 MB weights, "gap" the trunk alone

    config.train = ml_collections.ConfigDict()
    config.train.epochs = 0  # at most
    config.train.batch_size = 0
    return config
