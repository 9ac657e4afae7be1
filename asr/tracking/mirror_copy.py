"""Checkpoints in a mirror: copied there whole or not at all, and brought back where the mirror
knows more.

`<address>/<fingerprint>` holds the files of the last two checkpoints, an index of each (names and
hashes), which is written last, the journal, and a lease that says who copies. Costs each byte once
on the network; a store needs no renames, locks or folders.
"""

from __future__ import annotations

import io
import json
import os
import re
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

from asr.errors import ModelError, NetworkError, UserError, exit_with
from asr.runtime.formatting import without_secret
from asr.storage import files, hashing
from asr.tracking.mirror_store import Store, address, reason
from asr.training import checkpoints

NAMES = re.compile(
    r"(step|weights)-\d{8}/\w+\.(safetensors|json)"
)  # what an index may name: nothing outside the folder
LEASE, JOURNAL = "lease.json", "journal.jsonl"
ATTEMPTS = 9


def indices(store: Store) -> dict[int, dict[str, str]]:
    """Hashes by file of each checkpoint, newest first; an index that cannot be read is empty."""
    steps = sorted(
        (int(name[5:13]) for name in store.names() if re.fullmatch(r"step-\d{8}\.json", name)),
        reverse=True,
    )
    found = {step: _json(store.content(index_name(step))) for step in steps}
    return {
        step: one if all(NAMES.fullmatch(name) for name in one) else {}
        for step, one in found.items()
    }


def index_name(step: int) -> str:
    return f"step-{step:08d}.json"


def _json(content: bytes | None) -> dict[str, Any]:
    try:
        found = json.loads(content or b"{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def other(store: Store, owner: str) -> dict[str, Any]:
    """The lease of another training; empty if the mirror is free or ours."""
    found = _json(store.content(LEASE))
    return {} if found.get("owner", owner) == owner else found


def check_lease(store: Store, owner: str) -> None:
    """Raises:
    BadModel: another machine took the mirror after us.
    """
    if found := other(store, owner):
        raise ModelError(
            f"{_who(found)} trains the same and has taken over the mirror; this training is no longer copied"
        )


def _who(lease: dict[str, Any]) -> str:
    return f"{lease.get('host')}, process {lease.get('process')},"


def take(store: Store, owner: str, force: bool) -> None:
    """Have the mirror to ourselves: of two machines the one that started last has it, and both are
    told. No clocks are compared.

    Raises:
        BadModel: another machine took it after us.
    """
    if not force:
        check_lease(store, owner)
    elif found := other(store, owner):
        last = time.strftime("%Y-%m-%d %H:%M", time.gmtime(found.get("time", 0)))
        print(
            f"{_who(found)} held the mirror at {last} UTC; if the same training still runs there, it is no longer copied",
            flush=True,
        )
    lease = {
        "owner": owner,
        "host": socket.gethostname(),
        "process": os.getppid(),
        "time": round(time.time()),
    }
    store.write(LEASE, io.BytesIO(json.dumps(lease).encode()))


@contextmanager
def snapshot(folder: Path) -> Iterator[tuple[int, dict[str, IO[bytes]], dict[str, str]]]:
    """The newest checkpoint and all kept weights: opened files, which stay readable when training
    drops them, and their hashes.
    """
    for attempt in range(ATTEMPTS):
        with ExitStack() as stack:
            step = checkpoints.steps(folder, "step")[0]
            kept = [
                checkpoints.path_of(folder, "weights", one)
                for one in checkpoints.steps(folder, "weights")
            ]
            opened: dict[str, IO[bytes]] = {}
            hashes: dict[str, str] = {}
            try:
                for place in [*kept, checkpoints.path_of(folder, "step", step)]:
                    manifest = place / "manifest.json"
                    for name, digest in {
                        **files.read_json(manifest)["sha256"],
                        manifest.name: hashing.sha256(manifest),
                    }.items():
                        opened[f"{place.name}/{name}"] = stack.enter_context(
                            (place / name).open("rb")
                        )
                        hashes[f"{place.name}/{name}"] = digest
            except FileNotFoundError:
                if attempt + 1 == ATTEMPTS:
                    raise
                continue
            if (
                checkpoints.steps(folder, "step")[0] == step
            ):  # else weights that it wants may have been dropped
                yield step, opened, hashes
                return


def push(store: Store, folder: Path, log: Path, owner: str, force: bool = False) -> None:
    """Copy the newest checkpoint, and what came while that was copied."""
    take(store, owner, force)
    copied = None
    while checkpoints.steps(folder, "step")[:1] not in ([], [copied]):
        with snapshot(folder) as (copied, opened, hashes):
            known = indices(store)
            if known.get(copied) != hashes:
                there = {name: digest for one in known.values() for name, digest in one.items()}
                for name, source in opened.items():
                    if there.get(name) != hashes[name]:
                        store.write(name, source)
                store.write(JOURNAL, io.BytesIO(log.read_bytes() if log.is_file() else b""))
                check_lease(store, owner)
                store.write(index_name(copied), io.BytesIO(json.dumps(hashes).encode()))
            tidy(store, {**known, copied: hashes}, copied)


def tidy(store: Store, known: dict[int, dict[str, str]], newest: int) -> None:
    """Drop older checkpoints, index first, and folders that no index names. What is newer than ours
    is another machine's: it stays.
    """
    older = sorted((step for step in known if step <= newest), reverse=True)[checkpoints.MAX_KEPT :]
    store.drop(*map(index_name, older))
    named = {
        name.partition("/")[0] for step, one in known.items() if step not in older for name in one
    }
    store.drop(
        *(
            name
            for name in store.names()
            if re.fullmatch(r"(step|weights)-\d{8}", name) and name not in named
        )
    )


def fetch(store: Store, folder: Path, log: Path, owner: str) -> None:
    """Bring the newest whole checkpoint here, if the mirror's is newer than ours; says what a
    damaged one costs.
    """
    take(store, owner, force=True)
    have, found = _newest_whole(folder), indices(store)
    for step, hashes in found.items():
        if step <= have:
            break
        try:
            _bring(store, folder, hashes)
        except ModelError as fault:
            print(f"the mirror's checkpoint of step {step} {fault}; falling back", flush=True)
            store.drop(index_name(step))
            continue
        _join_journals(store, log)
        print(f"the checkpoint of step {step} comes from {without_secret(address())}", flush=True)
        have = step
    if have < max(found, default=0):
        print(
            f"the damaged checkpoint costs {max(found) - max(have, 0)} steps, which are done again",
            flush=True,
        )


def _newest_whole(folder: Path) -> int:
    whole = (
        step
        for step in checkpoints.steps(folder, "step")
        if _is_whole(checkpoints.path_of(folder, "step", step))
    )
    return next(whole, -1)


def _is_whole(place: Path, manifest: str | None = None) -> bool:
    """Whether a folder here has all its files, and the manifest of this hash if one is given."""
    try:
        checkpoints.check(place)
    except ModelError:
        return False
    return manifest in (None, hashing.sha256(place / "manifest.json"))


def _bring(store: Store, folder: Path, hashes: dict[str, str]) -> None:
    """The folders of one checkpoint, weights first: when its own is in place, all is there."""
    if not hashes:
        raise ModelError("has an index that cannot be read")
    for place in sorted({name.partition("/")[0] for name in hashes}, reverse=True):
        if _is_whole(folder / place, hashes.get(f"{place}/manifest.json")):
            continue
        with files.new_folder(folder / place) as draft:
            for name in (name for name in hashes if name.startswith(f"{place}/")):
                target = draft / name.partition("/")[2]
                try:
                    store.read(name, target)
                except FileNotFoundError:
                    raise ModelError(f"lacks {name}") from None
                if hashing.sha256(target) != hashes[name]:
                    raise ModelError(f"is damaged: {name}")


def _join_journals(store: Store, log: Path) -> None:
    """The mirror's journal, and after it the lines that only ours has."""
    theirs = (store.content(JOURNAL) or b"").splitlines(keepends=True)
    ours = log.read_bytes().splitlines(keepends=True) if log.is_file() else []
    known = set(theirs)
    files.write_bytes(log, b"".join([*theirs, *(line for line in ours if line not in known)]))


def main() -> None:
    """One attempt, in a process of its own: `fetch`, `push`, or `end` (push, and leave the mirror
    to others).
    """
    command, folder, log, owner, force = sys.argv[1:]
    try:
        store = Store(Path(folder).name)
        if command == "fetch":
            fetch(store, Path(folder), Path(log), owner)
        else:
            push(store, Path(folder), Path(log), owner, bool(force))
        if command == "end":
            store.drop(LEASE)
    except UserError:
        raise
    except Exception as error:  # each kind of store raises its own
        raise NetworkError(f"{without_secret(address())}: {reason(error)}") from None


if __name__ == "__main__":
    exit_with(main)
