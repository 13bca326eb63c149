"""What builds have left, kept by what it was made of: the same is not built twice, neither for two
cases that differ in how they are started alone, nor for two calls.

The key holds the workload (lookup/fingerprint.py), its reference outputs, the case without what
loading alone looks at, the machine and its libraries, and hotlap's own code that builds. What is
taken is checked against the hashes that were stored with it, and then like any other artefact
against the oracle.
"""

from __future__ import annotations

import hashlib
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import msgspec

from ..artefacts import manifest as manifests
from ..artefacts.manifest import File
from ..lookup import plugins
from ..race.messages import Built
from ..terms import files
from ..terms.case import Case
from ..terms.environment import Environment
from ..terms.stored import UNDECODABLE

# Options of a process: no build looks at them.
OF_A_PROCESS = ("allocator", "binding")
# Of an entry's folder: what describes it, and what was built.
ABOUT, CONTENT = "about.json", "content"
# The most that a store holds, B; what was used longest ago is removed first.
MOST_BYTES = 4 * 2**30
# A part that nobody has finished for so long is of a killed process, s.
FORGOTTEN_S = 86400.0
# Folders of hotlap whose code decides what a build leaves.
BUILDING = ("backends", "compiled", "lowering")


class KeptBuild(msgspec.Struct, frozen=True):
    """What is known of something built."""

    built: Built
    files: tuple[File, ...]


class Builds:
    """Keeps what was built, in a folder.

    key: of the workload, its reference and the machine (`key_of`).
    """

    def __init__(self, store: Path, key: str, threads: int) -> None:
        self.store, self.key, self.threads = store, key, threads

    def holds(self, case: Case) -> bool:
        """Returns whether the same was built before."""
        return (self.place(case) / ABOUT).is_file()

    def take(self, case: Case, folder: Path) -> Built | None:
        """Puts into the folder what was built of the same, and returns what is known of it; None
        where nothing was, or it is damaged, which is removed. Raises OSError.
        """
        place = self.place(case)
        try:
            entry = msgspec.json.decode((place / ABOUT).read_bytes(), type=KeptBuild)
        except (OSError, *UNDECODABLE):
            return None
        if manifests.files(place / CONTENT) != entry.files:
            shutil.rmtree(place, ignore_errors=True)
            return None
        copied(place / CONTENT, entry.files, folder)
        (place / ABOUT).touch()
        return entry.built

    def keep(self, case: Case, folder: Path, built: Built) -> None:
        """Keeps a folder that was just built. A disk that is full keeps nothing."""
        place, entry = self.place(case), KeptBuild(built, manifests.files(folder))
        part = place.with_name(secrets.token_hex(8).join(files.PART))
        try:
            copied(folder, entry.files, part / CONTENT)
            (part / ABOUT).write_bytes(msgspec.json.encode(entry))
            files.appear(part, place)
        except OSError:
            shutil.rmtree(part, ignore_errors=True)

    def place(self, case: Case) -> Path:
        """Returns the folder of what is built of a case."""
        content = alike(case)
        threads = 0 if "threads" in loaded(case) else case.threads(self.threads)
        backend = Path(str(plugins.load("hotlap.backends", case.backend).__file__)).read_bytes()
        digest = hashlib.sha256(f"{self.key} {content.id} {threads} ".encode() + backend)
        return self.store / digest.hexdigest()[:32]


def copied(source: Path, listed: Iterable[File], target: Path) -> None:
    """Copies the listed files of a folder into another. Raises OSError."""
    target.mkdir(parents=True, exist_ok=True)
    for file in listed:
        (target / file.path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / file.path, target / file.path)


def loaded(case: Case) -> tuple[str, ...]:
    """Returns the options of a case that loading looks at and building does not (LOADS)."""
    declared = getattr(plugins.backend(case.backend), "LOADS", ())
    return (*OF_A_PROCESS, *(declared(case) if callable(declared) else declared))


def alike(case: Case) -> Case:
    """Returns the case from which the same is built."""
    left_out = loaded(case)
    return replace(case, options=tuple(pair for pair in case.options if pair[0] not in left_out))


def key_of(fingerprint: str, oracle: Path, here: Environment) -> str:
    """Returns the key of a workload on a machine. oracle: the folder of its reference outputs."""
    digest = hashlib.sha256(fingerprint.encode())
    digest.update(msgspec.json.encode([here.cpu, here.isa, here.python, here.libraries, here.gpus]))
    digest.update(own_code())
    for file in manifests.files(oracle):
        digest.update(f"{file.path} {file.sha256}".encode())
    return digest.hexdigest()


@cache
def own_code() -> bytes:
    """Returns a hash of hotlap's code that builds."""
    digest = hashlib.sha256()
    for name in BUILDING:
        for path in sorted((Path(__file__).parents[1] / name).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.digest()


def pruned(store: Path, most_bytes: int = MOST_BYTES) -> int:
    """Removes from a store what was used longest ago, until it holds no more than it may, and what
    a killed process left. Returns how many entries went.
    """
    used: list[tuple[float, Path, int]] = []
    gone = 0
    for place in entries(store):
        when = max(file.stat().st_mtime for file in (place, place / ABOUT) if file.exists())
        if place.name.startswith(files.PART[0]):
            if time.time() - when > FORGOTTEN_S:
                shutil.rmtree(place, ignore_errors=True)
                gone += 1
            continue
        used.append((when, place, sum(file.stat().st_size for file in place.rglob("*") if file.is_file())))
    total = sum(size for _, _, size in used)
    for _, place, size in sorted(used):
        if total <= most_bytes:
            break
        shutil.rmtree(place, ignore_errors=True)
        total -= size
        gone += 1
    return gone


def entries(store: Path) -> Iterator[Path]:
    """Yields the folders of a store; nothing where there is no store."""
    if store.is_dir() and not store.is_symlink():
        yield from (path for path in store.iterdir() if path.is_dir() and not path.is_symlink())
