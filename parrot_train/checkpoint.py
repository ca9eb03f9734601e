"""Run folders: who may write in one, its checkpoints, its finished model, and how others find it.

    RUN/
      run.json                   what it is, how it stands (running, interrupted, failed, finished), how to repeat it
      log.jsonl                  one JSON object per log line, and one per evaluation
      tensorboard/ wandb/        the same numbers for these two, where stageN.report_to names them
      checkpoints/checkpoint-N/  a training state; checkpoint.json lists its files with their hashes
      config.json model*.safetensors tokenizer.json parrot_recipe.json …   the finished model

A checkpoint is written beside, synced, and renamed; the model's files arrive before ``run.json`` says "finished".
"""

import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parrot_runtime.errors import InputError, ParrotError
from parrot_runtime.publish import check_output, write_file
from parrot_train.data.records import UNDETERMINED
from parrot_train.shards import AGAIN, is_lora_checkpoint
from parrot_train.zero import is_zero_checkpoint, read_zero_checkpoint

if TYPE_CHECKING:
    from parrot_train.model.modeling import ParrotForConditionalGeneration

RUN_FILE = "run.json"
LOG_FILE = "log.jsonl"
TENSORBOARD = "tensorboard"
_WANDB = "wandb"
SKIPPED_FILE = "skipped.json"
CONFIG_FILE = "config.yaml"
CHECKPOINTS = "checkpoints"
_LOCK_FILE = ".lock"
_HASHES = "checkpoint.json"
_STEP = re.compile(r"checkpoint-(\d+)")


@contextmanager
def locked(run: Path) -> Iterator[None]:
    """Own the run folder while training in it.

    Raises InputError at once when another process does, or when there can be no such folder. The kernel drops the lock
    with its process, however that ends.
    """
    check_output(run)
    run.mkdir(parents=True, exist_ok=True)
    with (run / _LOCK_FILE).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            owner = file.read().strip() or "unknown"
            raise InputError(
                f"{run}: another training (process {owner}) writes in this folder; wait for it, or give another with -o"
            ) from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def read_run(run: Path) -> dict[str, Any] | None:
    """``run.json`` of a run folder, or None where there is none. Raises InputError when it cannot be read."""
    path = run / RUN_FILE
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); remove the folder, or train again with --force") from error
    if not isinstance(data, dict):
        raise InputError(f"{path}: expected a JSON object; remove the folder, or train again with --force")
    return data


def check_files(run: Path, note: Mapping[str, Any]) -> None:
    """Raise InputError unless the files of a finished run are those that ``note``, its ``run.json``, lists."""
    again = "train it again, or restore the file"
    try:
        change = _change(run, note.get("files", {}))
    except FileNotFoundError as error:
        raise InputError(f"{error.filename}: is not there, though the run finished; {again}") from error
    if change is not None:
        name, what = change
        raise InputError(f"{run / name}: has changed since the run finished: it {what}; {again}")


def known_languages(note: Mapping[str, Any]) -> list[str]:
    """The languages of a run by its ``run.json``: those of its data and, of an extended one, of what it came from."""
    before = note.get("from", {}).get("languages", ())
    own = {code for code, samples in note.get("languages", {}).items() if samples}
    return sorted({*before, *own} - {UNDETERMINED})


def write_run(run: Path, data: dict[str, Any]) -> None:
    """Replace ``run.json`` as a whole."""
    write_json(run / RUN_FILE, data)


def write_json(path: Path, data: Any) -> None:
    """Write a JSON file as a whole."""
    write_file(path, (json.dumps(data, ensure_ascii=False, indent=1) + "\n").encode())


def clear_run(run: Path) -> None:
    """Remove what an earlier training left in the folder, ``run.json`` last but first made void, and nothing else."""
    try:
        data = read_run(run) or {}
    except InputError:
        data = {}  # which files there were is lost with it: those of the new run replace them
    write_run(run, data | {"status": "cleared"})
    for name in (LOG_FILE, SKIPPED_FILE, CONFIG_FILE, *data.get("files", {})):
        (run / Path(name).name).unlink(missing_ok=True)
    for name in (CHECKPOINTS, TENSORBOARD, _WANDB):
        shutil.rmtree(run / name, ignore_errors=True)
    (run / RUN_FILE).unlink()


def publish_files(partial: Path, run: Path, announce: Callable[[dict], None]) -> dict[str, dict[str, Any]]:
    """Move all files of ``partial`` into ``run`` and return {name: {size, sha256}}.

    ``announce`` gets the same before the first file moves, so that a crash in between leaves nothing unlisted.
    """
    files = {path.name: _describe_and_sync(path) for path in sorted(partial.iterdir())}
    announce(files)
    for name in files:
        os.replace(partial / name, run / name)
    partial.rmdir()
    _sync_folder(run)
    return files


def _describe_and_sync(path: Path) -> dict[str, Any]:
    path.chmod(0o644)  # safetensors writes for its owner alone
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        os.fsync(file.fileno())
    return {"size": path.stat().st_size, "sha256": digest}


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def newest_finished_run(stage: int = 2, root: Path = Path("runs")) -> Path:
    """The run of ``stage`` under ``root`` that finished last. Raises InputError that names the command still to run."""
    found = []
    for path in (*root.glob(f"*/{RUN_FILE}"), *root.glob(f"*/*/{RUN_FILE}")):
        data = read_run(path.parent) or {}
        if data.get("status") == "finished" and data.get("stage") == stage:
            found.append((str(data.get("finished", "")), path.parent))
    if not found:
        raise InputError(f"no finished stage {stage} run under {root}/; run `parrot-train stage{stage}` first")
    return max(found)[1]


def load_checkpoint(folder: Path) -> "ParrotForConditionalGeneration":
    """The model saved in ``folder`` (a finished run, or a checkpoint, DeepSpeed's too): in float32, in eval mode.

    Raises InputError for a folder without a model, of DeepSpeed's with parts missing, and for one of adapters whose
    starting weights are not where they were.
    """
    import torch

    from parrot_train.model import ParrotForConditionalGeneration

    if not (folder / "config.json").is_file():
        raise InputError(f"{folder}: there is no config.json; expected a finished run of `parrot-train`")
    if is_zero_checkpoint(folder):
        return _load_parts(folder, read_zero_checkpoint(folder))
    if is_lora_checkpoint(folder):
        from parrot_train.lora import read_lora_checkpoint

        return _load_parts(folder, read_lora_checkpoint(folder))
    model, report = ParrotForConditionalGeneration.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True
    )
    return _complete(model, report, folder)


def _load_parts(folder: Path, tensors: Mapping[str, Any]) -> "ParrotForConditionalGeneration":
    import torch

    from parrot_train.model import ParrotConfig, ParrotForConditionalGeneration

    model, report = ParrotForConditionalGeneration.from_pretrained(
        None,
        config=ParrotConfig.from_pretrained(folder),
        state_dict={name: tensor.load() for name, tensor in tensors.items()},
        dtype=torch.float32,
        output_loading_info=True,
    )
    return _complete(model, report, folder)


def _complete(
    model: "ParrotForConditionalGeneration", report: Mapping[str, Any], folder: Path
) -> "ParrotForConditionalGeneration":
    if missing := sorted(report["missing_keys"]):  # transformers would fill them at random
        raise InputError(f"{folder}: lacks {len(missing)} of the model's weights, first {missing[0]}; {AGAIN}")
    return model.eval()


def seal_checkpoint(partial: Path, final: Path) -> None:
    """Hash and sync every file of ``partial`` and give it its name ``final``."""
    files = {
        str(path.relative_to(partial)): _describe_and_sync(path)
        for path in sorted(partial.rglob("*"))
        if path.is_file()
    }
    write_file(partial / _HASHES, json.dumps({"files": files}, indent=1).encode())
    if final.exists():  # written before a resume went back behind it
        shutil.rmtree(final)
    os.rename(partial, final)
    _sync_folder(final.parent)


def checkpoint_fault(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint, or None: every file is there with its size and hash."""
    try:
        files = json.loads((checkpoint / _HASHES).read_text(encoding="utf-8"))["files"]
        change = _change(checkpoint, files)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{type(error).__name__}: {error}"
    return None if change is None else " ".join(change)


def _change(folder: Path, files: Mapping[str, Mapping[str, Any]]) -> tuple[str, str] | None:
    """The first of ``files``, {name: {size, sha256}}, that is another one in ``folder``, and how it differs."""
    for name, expected in files.items():
        path = folder / name
        if path.stat().st_size != expected["size"]:
            return name, f"has {path.stat().st_size} bytes instead of {expected['size']}"
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != expected["sha256"]:
                return name, "has another content than was written"
    return None


def trim_log(run: Path, step: int) -> None:
    """Drop the log lines after ``step``, and one that a crash cut short: a resumed run writes them again."""
    path = run / LOG_FILE
    if not path.is_file():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            written = json.loads(line)["step"]
        except (ValueError, KeyError, TypeError):
            break
        if written > step:
            break
        kept.append(line + "\n")
    write_file(path, "".join(kept).encode())


def checkpoint_step(checkpoint: Path) -> int:
    """N of ``checkpoint-N``."""
    match = _STEP.fullmatch(checkpoint.name)
    if match is None:
        raise ParrotError(f"{checkpoint}: expected a folder named checkpoint-<step>")
    return int(match[1])


def checkpoints(run: Path) -> list[Path]:
    """The complete-looking checkpoints of a run, newest first; partial ones have other names."""
    found = [path for path in (run / CHECKPOINTS).glob("checkpoint-*") if _STEP.fullmatch(path.name)]
    return sorted(found, key=checkpoint_step, reverse=True)


def last_good_checkpoint(run: Path) -> tuple[Path | None, list[str]]:
    """The newest checkpoint that is whole, and one line about each newer one that is not."""
    faults = []
    for path in checkpoints(run):
        fault = checkpoint_fault(path)
        if fault is None:
            return path, faults
        faults.append(f"{path} is damaged and is passed over: {fault}")
    return None, faults


def keep_newest(run: Path, count: int, step: int) -> None:
    """Remove all but the ``count`` newest checkpoints up to ``step``, the last that was written, and partial ones.

    Those behind it are of a time to which the run will come again: damaged, or it would have gone on from there.
    """
    found = checkpoints(run)
    ahead = [path for path in found if checkpoint_step(path) > step]
    for path in [*ahead, *found[len(ahead) + count :], *(run / CHECKPOINTS).glob(".checkpoint-*.partial")]:
        shutil.rmtree(path, ignore_errors=True)
