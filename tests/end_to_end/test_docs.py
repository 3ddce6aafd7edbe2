"""What documents tell a newcomer to type is true."""

import itertools
import re
from pathlib import Path

import commands
import pytest
import recordings

from datasets.prepare import KNOWN
from ds_jax import cli
from ds_jax import config as configuration
from ds_jax.data.corpus import LABELS, TITLES

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))
RESULTS = ROOT / "benchmarks" / "results.md"  # whose commands take hours
RUN = ("first_hour", "how_the_numbers_are_made", "add_a_corpus_or_a_system")
# The quick start and --help have tests of their own in test_launch.py.
ELSEWHERE = ([], ["--help"])
HELP = cli.HELP


def test_every_command_that_is_shown_can_be_parsed(tmp_path):
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    documents = [ROOT / "README.md", RESULTS, *PAGES, *(ROOT / "configs").glob("*.py"), HELP]
    shown = [(path.name, one) for path in documents for one in commands.of_document(path)]
    assert len(shown) > 80
    outcomes = commands.run([command for _, command in shown], tmp_path, parse_only=True)
    for (name, command), outcome in zip(shown, outcomes, strict=True):
        assert outcome.status == 0, (name, command.arguments, outcome.printed)


def test_a_wrong_command_would_be_noticed(tmp_path):
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    lines = (
        "    python launch.py --mode=predict --window=3 a.wav",
        "    python launch.py --config=configs/ds_am_elra.py --config.picture.sice=3",
        "    srun --wrap='python launch.py --checkpont=runs/x' \\\n        --hold  # a comment",
        "    cat a.wav | python launch.py --mode=train - | head",
    )
    page = tmp_path / "page.md"
    page.write_text("\n".join(lines) + "\nand `python launch.py --fold=1 --mode=export`.\n")
    found = commands.of_document(page)
    assert found[2].arguments == ["--checkpont=runs/x"]
    assert found[3] == commands.Command(["--mode=train", "-"], "a.wav")
    outcomes = commands.run(found, tmp_path, parse_only=True)
    assert [outcome.status for outcome in outcomes] == [0, 1, 1, 1, 1]


@pytest.fixture(scope="module")
def desk(tmp_path_factory, weights_file):
    """A folder with all that the pages speak of, small; and without what they leave to others."""
    folder = tmp_path_factory.mktemp("desk")
    (folder / "configs").symlink_to(ROOT / "configs")
    rows, seeds = ["path,label,speaker"], itertools.count()  # no two recordings are the same
    for speaker in range(3):
        for label in LABELS:
            name = f"{speaker}/{label.lower()}.wav"
            recordings.sound(folder / "corpora" / "robots" / name, next(seeds), 0.25)
            rows.append(f"{name},{label},robot{speaker}")
    (folder / "corpora" / "robots" / "manifest.csv").write_text("\n".join(rows))
    for speaker in ("03", "08", "09", "10"):
        for text in ("a01", "a02"):
            for emotion in "WEAFNT":
                name = f"emodb/wav/{speaker}{text}{emotion}a.wav"
                recordings.sound(folder / "corpora" / name, next(seeds))
    for speaker in ("f1", "m1", "m2"):
        for emotion in ("rab", "dis", "pau", "gio", "neu", "tri", "sor"):
            name = f"emovo/{speaker}/{emotion}-{speaker}-b1.wav"
            recordings.sound(folder / "corpora" / name, next(seeds))
    for name in ("a.wav", "folder/b.wav", "folder/anger/c.wav"):
        recordings.sound(folder / name, 3, 0.5)
    return folder


def scaled_down(command, weights_file):
    """The same command on few pixels, for one epoch and in two folds, and with random weights."""
    arguments = command.arguments
    mode = next((one[7:] for one in arguments if one.startswith("--mode=")), "train")
    if mode not in ("train", "features", "corpus"):
        return command
    path = next(one[9:] for one in arguments if one.startswith("--config="))
    if path == "configs/paper.py":  # test_paper.py fills the cells, here they are all missing
        more = ["--corpora_dir=nothing", "--data_dir=nothing"]
        return command._replace(arguments=[*arguments, *more])
    small = {
        "picture.canvas": 48,
        "picture.size": 32,
        "model.freeze": "block4",
        "model.layers": "('block1_pool',)",
        "model.costs": "(0.1,1.0)",
        "train.epochs": 1,
        "train.batch_size": 16,
        "folds.count": 2,
        "weights": weights_file,
    }
    fields = configuration.describe(configuration.load(ROOT / path))
    more = [f"--config.{name}={value}" for name, value in small.items() if name in fields]
    return command._replace(arguments=[*arguments, *more])


@pytest.fixture(scope="module")
def outcomes(desk, weights_file):
    """For each page its commands, and how they ended that were run one after the other."""
    small = {
        page: [
            scaled_down(command, weights_file)
            for command in commands.of_document(ROOT / "docs" / f"{page}.md")
            if command.arguments not in ELSEWHERE
        ]
        for page in RUN
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("DS_JAX_CORPORA", raising=False)
        done = iter(commands.run([one for page in RUN for one in small[page]], desk))
    return {page: [(one, next(done)) for one in small[page]] for page in RUN}


@pytest.mark.parametrize("page", RUN)
def test_every_command_of_a_page_runs(page, outcomes):
    assert len(outcomes[page]) >= 4
    for command, outcome in outcomes[page]:
        assert outcome.status == 0, (command.arguments, outcome.printed)


def test_all_pages_are_run():
    assert {page.stem for page in PAGES} == set(RUN)


def test_they_leave_what_the_pages_say(outcomes, desk):
    runs = desk / "runs"
    for name in (
        "robots_look/corpus.html",
        "robots/report.html",
        "robots/fold_00/checkpoints",
        "robots/export/model.stablehlo",
        "robots_mlr/report.html",
        "emodb_whole/evaluations/emovo/report.html",
        "paper/paper.html",
        "paper_open/paper.json",
    ):
        assert (runs / name).exists(), name
    tree = (ROOT / "docs" / "first_hour.md").read_text().partition("    runs/robots/\n")[2]
    of_run, of_fold = tree.partition("\n\n")[0].partition("fold_00/")[::2]
    of_fold, _, of_evaluation = of_fold.partition("evaluations/")
    for folder, text, least in (
        ("robots", of_run, 5),
        ("robots/fold_00", of_fold, 7),
        ("emodb_whole/evaluations/emovo", of_evaluation, 5),
    ):
        found = re.findall(r"\w+(?:\.\w+|/ |/$)", text)
        assert len(found) >= least
        for name in found:
            assert (runs / folder / name.strip()).exists(), (folder, name)
    assert 'selected_on": "test' in (runs / "emodb_leaking" / "report.json").read_text()
    assert "data:audio/flac" in (runs / "robots" / "report.html").read_text()
    assert list((desk / "pictures").glob("*.png"))
    header, *rows = (desk / "features.csv").read_text().splitlines()
    assert header.startswith("name,neuron_0,")
    assert len(rows) == 2
    printed = {" ".join(one.arguments): said.printed for one, said in outcomes["first_hour"]}
    (table,) = (said for call, said in printed.items() if "folder/**/*.wav" in call)
    assert "a.wav" in table
    assert "folder/anger/c.wav" in table


def test_links_lead_somewhere():
    for path in [ROOT / "README.md", RESULTS, *PAGES]:
        for target in re.findall(r"\]\(([^)#]*)(#[^)]*)?\)", path.read_text(encoding="utf-8")):
            file, anchor = path.parent / target[0] if target[0] else path, target[1]
            assert file.exists(), (path.name, target)
            if anchor:
                text = re.sub(r"[^\w\n# -]", "", file.read_text(encoding="utf-8").lower())
                titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
                assert anchor[1:].replace("-", " ") in titles, (path.name, anchor)


def test_the_readme_installs_from_files_that_there_are_and_tells_all_terms():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    wanted = re.findall(r"requirements[\w-]*\.txt", readme)
    assert {"requirements.txt", "requirements-dev.txt", "requirements-opensmile.txt"} <= set(wanted)
    assert all((ROOT / name).is_file() for name in wanted)
    terms = readme.partition("## Licences")[2].partition("\n## ")[0]
    assert all(f"| {TITLES[name]} |" in terms for name in KNOWN)
    launch = (ROOT / "launch.py").read_text(encoding="utf-8")
    for mode in cli.MODES:
        (module,) = re.findall(rf"^\| `{mode}` \|.*\| `(\w+)\.py` \|$", readme, re.MULTILINE)
        assert (ROOT / "ds_jax" / f"{module}.py").is_file()
        assert f" {module}.{'report' if mode == 'report' else 'run'}(" in launch
    for name in re.findall(r"`([a-z_*]+\.py)`", readme.partition("| config |")[2]):
        assert list((ROOT / "configs").glob(name)), name
    for name in re.findall(
        r"(?:datasets|ds_jax|docs|configs|tests|benchmarks)/[\w/]+\.\w+", readme
    ):
        assert (ROOT / name).exists(), name
