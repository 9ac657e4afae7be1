"""Make a model ready to recognise, on the engine and in the precision that are named.

For OpenVINO a folder's model is converted once, and kept in .cache/engines under the hash of its
files; from then on it is loaded without torch, in 0.3 CPU seconds for 73 M weights instead of 5.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer

from asr import dvc_hashes, paths
from asr.decoding import vocabulary
from asr.decoding.recognizer import Recognizer
from asr.engines import available
from asr.engines.engine import OPENVINO, Engine
from asr.errors import UserError
from asr.runtime.locks import locked
from asr.storage import files, hashing

if TYPE_CHECKING:
    import numpy as np

    from asr.engines import graph
    from asr.model.loader import Start

ENCODER, DECODER = "encoder.xml", "decoder.xml"
COMPILED = "compiled"  # folder of what OpenVINO remembers of compiling them; it holds no weights
VOCABULARY, TOKENIZER = "vocabulary.json", "tokenizer.json"
CONVERTER = Path(__file__).parents[1] / "engines/graph.py"
MODEL_FILES = ("*.json", "*.txt", "*.safetensors")  # what a folder's model is read from
UNUSED_SECONDS = 30 * 86_400  # a converted model is kept so long after its last use


def of_folder(folder: Path, engine: str, precision: str, method: str) -> Recognizer:
    """The recogniser of a model in a folder; imports torch only where it must.

    Raises:
        ModelError: not a Whisper.
        ParamsError: this machine has no such engine or precision.
    """
    if engine != OPENVINO:
        return of_start(_load(folder), engine, precision, method)
    available.refuse_absent(engine, precision)
    try:
        return _of_converted(_converted(folder, precision), precision, method)
    except UserError:
        raise
    except Exception:  # the converted files are damaged, which libraries tell in many ways
        shutil.rmtree(_converted(folder, precision), ignore_errors=True)
        return _of_converted(_converted(folder, precision), precision, method)


def _of_converted(converted: Path, precision: str, method: str) -> Recognizer:
    """The recogniser of a converted model."""
    from asr.engines.openvino_engine import OpenVinoEngine

    encoder, decoder = (str(converted / name) for name in (ENCODER, DECODER))
    ready = OpenVinoEngine(encoder, decoder, precision, cache=converted / COMPILED)
    known = vocabulary.from_json(files.read_json(converted / VOCABULARY))
    tokenizer = Tokenizer.from_file(str(converted / TOKENIZER))
    return Recognizer(ready, known, tokenizer, method)


def of_start(start: Start, engine: str, precision: str, method: str) -> Recognizer:
    """The recogniser of a model in memory, which is not kept.

    With torch the model is moved to the fastest device and cast.

    Raises:
        ParamsError: this machine has no such engine or precision.
    """
    ready = _openvino(start, precision) if engine == OPENVINO else _torch(start, precision)
    tokenizer = start.tokenizer.backend_tokenizer
    return Recognizer(ready, vocabulary.of_model(start), tokenizer, method)


def _openvino(start: Start, precision: str) -> Engine:
    available.refuse_absent(OPENVINO, precision)
    from asr.engines import graph
    from asr.engines.openvino_engine import OpenVinoEngine

    weights, config = _weights(start), start.model.config.to_dict()
    encoder = graph.encoder(weights, config, precision)
    return OpenVinoEngine(encoder, graph.decoder(weights, config, precision), precision)


def _torch(start: Start, precision: str) -> Engine:
    from asr.engines.torch_engine import TorchEngine
    from asr.model import loader

    return TorchEngine(start.model, precision, loader.device())


def _weights(start: Start) -> graph.Weights:
    tensors = start.model.state_dict()

    def weights(name: str) -> np.ndarray:
        values: np.ndarray = tensors[name].detach().float().cpu().numpy()
        return values

    return weights


def _load(folder: Path) -> Start:
    from asr.model import loader

    return loader.load(os.fspath(folder), None, None)


def _converted(folder: Path, precision: str) -> Path:
    """The folder of a converted model, which is made where it is missing."""
    store = paths.cache("engines")
    store.mkdir(parents=True, exist_ok=True)
    _drop_unused(store)
    converted = store / _key(folder, precision)
    if not converted.is_dir():
        with locked(store / "lock"):
            if not converted.is_dir():
                with files.new_folder(converted) as draft:
                    _convert(_load(folder), precision, draft)
    with suppress(OSError):  # the disk may be read only
        os.utime(converted)
    return converted


def identity(folder: Path) -> str:
    """A hash of a model's files. Costs 1 s per GB, once for each state of the files."""
    found = sorted({path for pattern in MODEL_FILES for path in folder.glob(pattern)})
    return _remembered(found, lambda: [[path.name, hashing.sha256(path)] for path in found])


def _key(folder: Path, precision: str) -> str:
    """A hash of a model's files, of the code that converts it, and of the precision."""
    code = _remembered([CONVERTER], lambda: hashing.code_hash(("asr/engines/graph.py",)))
    return hashing.hash_of([code, precision, identity(folder)])[:32]


def _remembered(read: list[Path], value: Callable[[], Any]) -> str:
    """The hash of a value that is made from these files, computed once for each state of them."""
    stamps = [[str(path.resolve()), *dvc_hashes.stamp(path)] for path in read]
    known = paths.cache("engines", "keys", hashing.hash_of(stamps))
    if not known.is_file():
        files.write_text(known, hashing.hash_of(value()))
    return known.read_text(encoding="utf-8")


def _convert(start: Start, precision: str, folder: Path) -> None:
    import openvino

    from asr.engines import graph

    weights, config = _weights(start), start.model.config.to_dict()
    for name, build in ((ENCODER, graph.encoder), (DECODER, graph.decoder)):
        model = build(weights, config, precision)
        openvino.save_model(model, folder / name, compress_to_fp16=False)
    files.write_json(folder / VOCABULARY, vocabulary.of_model(start).as_json())
    start.tokenizer.backend_tokenizer.save(str(folder / TOKENIZER))


def _drop_unused(store: Path) -> None:
    """Delete converted models, and hashes of models, that are old."""
    oldest = time.time() - UNUSED_SECONDS
    for path in (*store.glob("[0-9a-f]*/"), *store.glob("keys/*")):
        if path.stat().st_mtime > oldest:
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
