"""Copy checkpoints to the mirror, whole or not at all, and bring back what is newer there.

`<address>/<fingerprint>` holds the files of the last two checkpoints, an index of each (names and
hashes), which is written last, the journal, and a lease that says who copies. Costs each byte once
on the network. A store needs no renames, locks or folders.
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

# what an index may name: nothing outside the folder
INDEXED_FILE = re.compile(r"(step|weights)-\d{8}/\w+\.(safetensors|json)")
INDEX = re.compile(r"step-\d{8}\.json")
FOLDER = re.compile(r"(step|weights)-\d{8}")
LEASE = "lease.json"
JOURNAL = "journal.jsonl"
ATTEMPTS = 9  # to open a checkpoint that training does not drop meanwhile


def read_indices(store: Store) -> dict[int, dict[str, str]]:
    """Hashes by file of each checkpoint, newest first; an index that cannot be read is empty."""
    names = [name for name in store.names() if INDEX.fullmatch(name)]
    steps = sorted((int(name[5:13]) for name in names), reverse=True)
    return {step: _read_index(store, step) for step in steps}


def index_name(step: int) -> str:
    return f"step-{step:08d}.json"


def _read_index(store: Store, step: int) -> dict[str, str]:
    index = _parse(store.content(index_name(step)))
    return index if all(INDEXED_FILE.fullmatch(name) for name in index) else {}


def _parse(content: bytes | None) -> dict[str, Any]:
    """A JSON object; empty if the content is missing or something else."""
    try:
        value = json.loads(content or b"{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _other_lease(store: Store, owner: str) -> dict[str, Any]:
    """The lease of another training; empty if the mirror is free or ours."""
    lease = _parse(store.content(LEASE))
    return {} if lease.get("owner", owner) == owner else lease


def _holder(lease: dict[str, Any]) -> str:
    return f"{lease.get('host')}, process {lease.get('process')},"


def check_lease(store: Store, owner: str) -> None:
    """Refuse to copy once another machine has the mirror.

    Raises:
        ModelError: another machine took the mirror after us.
    """
    if lease := _other_lease(store, owner):
        raise ModelError(
            f"{_holder(lease)} trains the same and has taken over the mirror; "
            "this training is no longer copied"
        )


def take_lease(store: Store, owner: str, force: bool) -> None:
    """Take the mirror for this training, and say so if another one had it.

    Of two machines the one that started last has the mirror; the other sees it at its next copy. No
    clocks are compared.

    Args:
        force: take it from another training; without, only renew our lease.
    Raises:
        ModelError: another machine took it after us.
    """
    if not force:
        check_lease(store, owner)
    elif other := _other_lease(store, owner):
        last = time.strftime("%Y-%m-%d %H:%M", time.gmtime(other.get("time", 0)))
        print(
            f"{_holder(other)} held the mirror at {last} UTC; "
            "if the same training still runs there, it is no longer copied",
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
    """Open the newest checkpoint and all kept weights.

    Yields:
        the step, the opened files by name, which stay readable when training drops them, and their
        hashes.
    Raises:
        FileNotFoundError: training dropped files each time before they were open.
    """
    for attempt in range(ATTEMPTS):
        with ExitStack() as stack:
            step = checkpoints.steps(folder, "step")[0]
            try:
                opened, hashes = _open_files(folder, step, stack)
            except FileNotFoundError:
                if attempt + 1 == ATTEMPTS:
                    raise
                continue
            # after a newer checkpoint the weights that this one needs may have been dropped
            if checkpoints.steps(folder, "step")[0] == step:
                yield step, opened, hashes
                return


def _open_files(
    folder: Path, step: int, stack: ExitStack
) -> tuple[dict[str, IO[bytes]], dict[str, str]]:
    """Files and hashes of all weights and of one checkpoint, by `folder/file`."""
    weights = [
        checkpoints.path_of(folder, "weights", weights_step)
        for weights_step in checkpoints.steps(folder, "weights")
    ]
    opened: dict[str, IO[bytes]] = {}
    hashes: dict[str, str] = {}
    for path in [*weights, checkpoints.path_of(folder, "step", step)]:
        manifest = path / "manifest.json"
        digests = {
            **files.read_json(manifest)["sha256"],
            manifest.name: hashing.sha256(manifest),
        }
        for name, digest in digests.items():
            opened[f"{path.name}/{name}"] = stack.enter_context((path / name).open("rb"))
            hashes[f"{path.name}/{name}"] = digest
    return opened, hashes


def push(store: Store, folder: Path, log: Path, owner: str, force: bool = False) -> None:
    """Copy the newest checkpoint to the mirror, and those saved while that was copied.

    Raises:
        ModelError: another machine took the mirror after us.
    """
    take_lease(store, owner, force)
    copied = None
    while checkpoints.steps(folder, "step")[:1] not in ([], [copied]):
        with snapshot(folder) as (copied, opened, hashes):
            indices = read_indices(store)
            if indices.get(copied) != hashes:
                _write_changed(store, opened, hashes, indices)
                store.write(JOURNAL, io.BytesIO(log.read_bytes() if log.is_file() else b""))
                check_lease(store, owner)
                store.write(index_name(copied), io.BytesIO(json.dumps(hashes).encode()))
            tidy(store, {**indices, copied: hashes}, copied)


def _write_changed(
    store: Store,
    opened: dict[str, IO[bytes]],
    hashes: dict[str, str],
    indices: dict[int, dict[str, str]],
) -> None:
    """Write the files that no index of the mirror names with this hash."""
    copied = {name: digest for index in indices.values() for name, digest in index.items()}
    for name, source in opened.items():
        if copied.get(name) != hashes[name]:
            store.write(name, source)


def tidy(store: Store, indices: dict[int, dict[str, str]], newest: int) -> None:
    """Drop older checkpoints, index first, and folders that no index names.

    Checkpoints newer than `newest`, our own, are another machine's and stay.
    """
    ours = sorted((step for step in indices if step <= newest), reverse=True)
    dropped = ours[checkpoints.MAX_KEPT :]
    store.drop(*map(index_name, dropped))
    used = {
        name.partition("/")[0]
        for step, index in indices.items()
        if step not in dropped
        for name in index
    }
    store.drop(*(name for name in store.names() if FOLDER.fullmatch(name) and name not in used))


def fetch(store: Store, folder: Path, log: Path, owner: str) -> None:
    """Bring the newest whole checkpoint here, if the mirror's is newer than ours.

    Falls back to the one before where a checkpoint is damaged, and says how many steps that costs.
    """
    take_lease(store, owner, force=True)
    have = _newest_whole(folder)
    indices = read_indices(store)
    for step, hashes in indices.items():
        if step <= have:
            break
        try:
            _download(store, folder, hashes)
        except ModelError as fault:
            print(f"the mirror's checkpoint of step {step} {fault}; falling back", flush=True)
            store.drop(index_name(step))
            continue
        _join_journals(store, log)
        print(f"the checkpoint of step {step} comes from {without_secret(address())}", flush=True)
        have = step
    newest = max(indices, default=have)
    if have < newest:
        lost = newest - max(have, 0)
        print(f"the damaged checkpoint costs {lost} steps, which are done again", flush=True)


def _newest_whole(folder: Path) -> int:
    """The step of the newest checkpoint here that has all its files; -1 if there is none."""
    for step in checkpoints.steps(folder, "step"):
        if _is_whole(checkpoints.path_of(folder, "step", step)):
            return step
    return -1


def _is_whole(path: Path, manifest: str | None = None) -> bool:
    """Whether a folder here has all its files, and the manifest of this hash if one is given."""
    try:
        checkpoints.check(path)
    except ModelError:
        return False
    return manifest in (None, hashing.sha256(path / "manifest.json"))


def _download(store: Store, folder: Path, hashes: dict[str, str]) -> None:
    """Bring the folders of one checkpoint here that we do not have.

    Weights come first: once the checkpoint's own folder is in place, all is there.

    Raises:
        ModelError: a file is missing or damaged.
    """
    if not hashes:
        raise ModelError("has an index that cannot be read")
    names = {name.partition("/")[0] for name in hashes}
    for name in sorted(names, reverse=True):
        if not _is_whole(folder / name, hashes.get(f"{name}/manifest.json")):
            _download_folder(store, folder / name, hashes)


def _download_folder(store: Store, path: Path, hashes: dict[str, str]) -> None:
    with files.new_folder(path) as draft:
        for name in hashes:
            if not name.startswith(f"{path.name}/"):
                continue
            target = draft / name.partition("/")[2]
            try:
                store.read(name, target)
            except FileNotFoundError:
                raise ModelError(f"lacks {name}") from None
            if hashing.sha256(target) != hashes[name]:
                raise ModelError(f"is damaged: {name}")


def _join_journals(store: Store, log: Path) -> None:
    """Write the mirror's journal, and after it the lines that only ours has."""
    theirs = (store.content(JOURNAL) or b"").splitlines(keepends=True)
    ours = log.read_bytes().splitlines(keepends=True) if log.is_file() else []
    shared = set(theirs)
    only_ours = [line for line in ours if line not in shared]
    files.write_bytes(log, b"".join([*theirs, *only_ours]))


def main() -> None:
    """Run one command: `fetch`, `push`, or `end` (push, and leave the mirror to others)."""
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
