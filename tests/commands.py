"""The commands that documents show: finds them, and runs many of them in one process' forks.

    python tests/commands.py < requests.json

starts no Python anew for each of them, which would take longer than what most of them do here.
"""

import json
import os
import re
import shlex
import subprocess
import sys
import traceback
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PROGRAM = ["python", "launch.py"]


class Command(NamedTuple):
    """A call of launch.py.

    Attributes:
        arguments: Behind `python launch.py`.
        stdin: The file that is piped into it, if any.
    """

    arguments: list[str]
    stdin: str = ""


class Outcome(NamedTuple):
    """How a command ended: its exit status, and all that it printed."""

    status: int
    printed: str


def of_document(path: Path) -> list[Command]:
    """The calls of launch.py in a document's indented blocks and in its code within lines."""
    text = path.read_text(encoding="utf-8").replace("\\\n", " ")
    indented = re.findall(r"^ {4,}(\S.*)$", text, re.MULTILINE)
    within = re.findall(r"`(python launch\.py[^`]*)`", text)
    return [command for line in indented + within for command in of_line(line)]


def of_line(line: str) -> list[Command]:
    """The calls of launch.py in a line of a shell, those in the quotes of another call too."""
    if " ".join(PROGRAM) not in line:
        return []
    words, found, stdin = shlex.split(line, comments=True), [], ""
    for position, word in enumerate(words):
        if " ".join(PROGRAM) in word:
            found += of_line(word.partition("=")[2])
        if words[position : position + 2] == ["cat", *words[position + 1 : position + 2]]:
            stdin = words[position + 1]
        if words[position : position + 2] == PROGRAM:
            rest = words[position + 2 :]
            end = rest.index("|") if "|" in rest else len(rest)
            found.append(Command(rest[:end], stdin))
    return found


def run(commands: list[Command], folder: Path, parse_only: bool = False) -> list[Outcome]:
    """Runs commands one after the other in a folder; or only parses and checks their flags."""
    request = {"commands": commands, "parse_only": parse_only}
    done = subprocess.run(
        [sys.executable, __file__],
        input=json.dumps(request),
        cwd=folder,
        env=os.environ | {"LOKY_MAX_CPU_COUNT": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return [Outcome(*outcome) for outcome in json.loads(done.stdout)]


def _serve() -> None:
    import launch
    from ds_jax import cli

    request = json.load(sys.stdin)
    if not request["parse_only"]:
        import tensorflow_datasets  # noqa: F401

        from ds_jax.commands import corpus, export, features, paper, train  # noqa: F401

    def parse(arguments: list[str]) -> list[str]:
        return cli.parse(arguments, launch.QUICKSTART)

    def check(arguments: list[str]) -> None:
        system = launch.flags.FLAGS["config"].value.system
        paths = [Path(argument) for argument in arguments[1:]]
        cli.check_flags(launch.flags.FLAGS["mode"].value, cli.given_flags(), paths, system)

    main = check if request["parse_only"] else launch.main
    outcomes = []
    for arguments, stdin in request["commands"]:
        stdin = "" if request["parse_only"] else stdin
        outcomes.append(_in_a_fork(main, parse, arguments, stdin))
    print(json.dumps(outcomes))


def _in_a_fork(main, parse, arguments: list[str], stdin: str) -> tuple[int, str]:
    from absl import app

    output = Path("output.txt")
    if child := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), output.read_text()
    status = 1
    try:
        written = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(os.open(stdin or os.devnull, os.O_RDONLY), 0)
        os.dup2(written, 1)
        os.dup2(written, 2)
        sys.argv = ["launch.py", *arguments]
        app.run(main, argv=sys.argv, flags_parser=parse)
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(status)


if __name__ == "__main__":
    _serve()
