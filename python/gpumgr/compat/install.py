"""Puts files of the old names into the place of a hand-written manager's, and back.

The folder gets the four files and a copy of this package beside them, so nothing has to be installed where they are
imported from. What was there is kept as NAME.before-gpumgr. Nothing is lost on the way back either: a file that was
changed meanwhile is kept as NAME.after-gpumgr.

A record in the copy says what was done. It is written before each file is, so that both ways may be broken off anywhere
and taken back, or gone on with.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional

from .._version import __version__
from .shims import SHIMS, text_of

PACKAGE = Path(__file__).resolve().parents[1]
RECORD = "installed-by-gpumgr.json"
BEFORE = ".before-gpumgr"
AFTER = ".after-gpumgr"


class InstallError(Exception):
    """Nothing was changed; the message says what stands in the way."""


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _text(name: str) -> bytes:
    return text_of(name, ".gpumgr").encode()


def _write(path: Path, data: bytes, like: Optional[Path]) -> None:
    """In one step: whoever imports it meanwhile gets the old or the new one, whole."""
    fd, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
        _look_like(temporary, like)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _look_like(path: Path, like: Optional[Path]) -> None:
    if like is None:
        path.chmod(0o644)
        return
    before = like.stat()
    path.chmod(before.st_mode & 0o777)
    if os.geteuid() == 0:
        os.chown(path, before.st_uid, before.st_gid)


def _exists(path: Path) -> bool:
    return os.path.lexists(path)


class _Entry(NamedTuple):
    """One file in the record: digests of what we wrote there, the newest first; the name under which what was there
    before is kept, None where nothing was."""

    digests: List[str]
    before: Optional[str]

    def is_ours(self, data: bytes) -> bool:
        return _digest(data) in self.digests


class Installation:
    """The four files in `folder`, the package of the old manager."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.copy = folder / "gpumgr"
        self.said: List[str] = []

    def _say(self, text: str) -> None:
        self.said.append(text)

    def _record(self) -> Optional[Dict[str, _Entry]]:
        """What was installed; None: nothing was."""
        path = self.copy / RECORD
        try:
            files = {**self._unrecorded(), **json.loads(path.read_text())["files"]}
            return {str(name): self._entry(str(name), entry) for name, entry in files.items()}
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise InstallError(f"{path} cannot be understood: {error!r}") from None

    def _unrecorded(self) -> Dict[str, str]:
        """What was written when the record was made only after all of it, and that broke off."""
        written = {name: _text(name) for name in SHIMS if _exists(self.folder / name)}
        return {name: _digest(data) for name, data in written.items() if (self.folder / name).read_bytes() == data}

    def _entry(self, name: str, entry: Any) -> _Entry:
        if isinstance(entry, str):  # as it once was: the digest only, and one name for what was before
            return _Entry([entry], name + BEFORE if _exists(self.folder / (name + BEFORE)) else None)
        return _Entry([str(digest) for digest in entry["digests"]], entry["before"])

    @staticmethod
    def _packed(record: Dict[str, _Entry]) -> bytes:
        files = {name: entry._asdict() for name, entry in record.items()}
        return (json.dumps({"version": __version__, "files": files}, indent=2) + "\n").encode()

    def _note(self, name: str, data: bytes, before: Optional[str], digests: List[str]) -> None:
        """That `data` is written to this file from now on."""
        record = self._record() or {}
        digest = _digest(data)
        record[name] = _Entry([digest, *(one for one in digests if one != digest)], before)
        _write(self.copy / RECORD, self._packed(record), None)

    # --- there

    def install(self) -> None:
        self._check()
        before = self._record() or {}
        self._copy_package()
        for name in SHIMS:
            self._replace(name, _text(name), before.get(name))

    def _check(self) -> None:
        if not self.folder.is_dir():
            raise InstallError(f"{self.folder} is not a folder")
        inner = self.folder / "lib"
        if not any(_exists(self.folder / name) for name in SHIMS) and any(_exists(inner / name) for name in SHIMS):
            raise InstallError(f"the old files are not in {self.folder} but in {inner}: name that folder")
        if PACKAGE.parent == self.folder.resolve():
            raise InstallError(f"{self.folder} is where this gpumgr itself lies: run another copy of it")
        if _exists(self.copy) and self._record() is None:
            raise InstallError(f"{self.copy} exists and is not of gpumgr's making: move it away")
        if not os.access(self.folder, os.W_OK):
            raise InstallError(f"{self.folder} may not be written to")

    def _copy_package(self) -> None:
        """Beside first, then into its place."""
        fresh = Path(tempfile.mkdtemp(prefix=".gpumgr.", dir=self.folder))
        try:
            target = fresh / "gpumgr"
            shutil.copytree(PACKAGE, target, ignore=shutil.ignore_patterns("__pycache__", RECORD))
            # Marked from the start: an installation that is broken off can be taken back.
            (target / RECORD).write_bytes(self._packed(self._record() or {}))
            self._swap(target, fresh / "old")
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
        self._say(f"copied gpumgr {__version__} to {self.copy}/")

    def _swap(self, target: Path, old: Path) -> None:
        is_there = _exists(self.copy)
        if is_there:
            os.rename(self.copy, old)
        try:
            os.rename(target, self.copy)
        except BaseException:
            if is_there:
                os.rename(old, self.copy)  # the record is in it
            raise

    def _replace(self, name: str, data: bytes, entry: Optional[_Entry]) -> None:
        path = self.folder / name
        if not _exists(path):
            self._note(name, data, None if entry is None else entry.before, [])
            _write(path, data, None)
            self._say(f"wrote {path}")
            return
        now = path.read_bytes()
        if entry is None or not entry.is_ours(now):
            kept = self._keep(path, data)
            _write(path, data, path)
            self._say(f"replaced {path}; the old one is {kept.name}")
        elif now == data:
            self._say(f"{path} is as it should be")
        else:
            self._note(name, data, entry.before, entry.digests)
            _write(path, data, path)
            self._say(f"renewed {path}")

    def _keep(self, path: Path, data: bytes) -> Path:
        """What is there, under another name, for `data` is about to take its place."""
        kept = self._free_name(path.with_name(path.name + BEFORE))
        try:
            shutil.copy2(path, kept, follow_symlinks=False)
            self._note(path.name, data, kept.name, [])
        except BaseException:
            kept.unlink(missing_ok=True)
            raise
        return kept

    @staticmethod
    def _free_name(path: Path) -> Path:
        free, number = path, 1
        while _exists(free):
            number += 1
            free = path.with_name(f"{path.name}.{number}")
        return free

    # --- and back

    def undo(self) -> None:
        installed = self._record()
        if installed is None:
            raise InstallError(f"nothing of gpumgr's is installed in {self.folder}")
        for name in SHIMS:
            if name in installed:  # else it was not reached
                self._restore(self.folder / name, installed[name])
        shutil.rmtree(self.copy)
        self._say(f"removed {self.copy}/")

    def _restore(self, path: Path, entry: _Entry) -> None:
        kept = None if entry.before is None else self.folder / entry.before
        now = path.read_bytes() if _exists(path) else None
        is_ours = now is not None and entry.is_ours(now)
        if kept is not None and not _exists(kept):
            if not is_ours:
                return  # it was restored already
            kept = None
        if now is not None and not is_ours and (kept is None or kept.read_bytes() != now):  # else it was not reached
            self._put_aside(path)
        if kept is not None:
            os.replace(kept, path)
            self._say(f"restored {path}")
        elif is_ours:
            path.unlink()
            self._say(f"removed {path}; {'there was none before' if entry.before is None else 'the old one is gone'}")

    def _put_aside(self, path: Path) -> None:
        aside = self._free_name(path.with_name(path.name + AFTER))
        os.rename(path, aside)
        self._say(f"{path} had been changed; it is kept as {aside.name}")
