"""Which files a stage reads; those of the nano world are drawn where they are missing."""

from pathlib import Path

from parrot_runtime.errors import InputError
from parrot_train.config import EXTEND, NANO, Stage, TrainConfig, section_of
from parrot_train.data.prepare import worker_count


def data_files(config: TrainConfig, stage: Stage) -> list[Path]:
    """The LLaVA JSON files of a stage; ``nano`` stands for the nano world, which is written when it is missing.

    Raises InputError for a file that is not there or is named twice, and for a language that nano does not speak.
    """
    files: list[Path] = []
    for name in config.files(stage):
        files.append(_nano_file(config, stage) if name == NANO else Path(name))
    resolved = [path.resolve() for path in files]
    for path, place in zip(files, resolved, strict=True):
        if resolved.count(place) > 1:
            raise InputError(f"{path}: is named twice among the data files; name it once")
    _check_there(files, "--data")
    return files


def heldout_files(config: TrainConfig, stage: Stage, training: list[Path]) -> list[Path]:
    """The files that an evaluation asks about.

    Raises InputError for none, and for one that is not there or is among ``training``.
    """
    names = config.data.heldout
    if not names:
        raise InputError(
            f"{section_of(stage)}.eval_steps is {config.stage(stage).eval_steps} and data.heldout names no files to "
            "ask about; name LLaVA JSON files with --set data.heldout=[FILE]"
        )
    folder = Path(config.data.nano_folder)
    files = [nano_data(config, folder)["heldout"] if name == NANO else Path(name) for name in names]
    learnt = {path.resolve() for path in training}
    for path in files:
        if path.resolve() in learnt:
            raise InputError(
                f"{path}: is among the files of {section_of(stage)} too, so nothing in it is held out; give others"
            )
    _check_there(files, "--set data.heldout=[FILE]")
    return files


def _check_there(files: list[Path], option: str) -> None:
    missing = [str(path) for path in files if not path.is_file()]
    if missing:
        there = "there is no such file" if len(missing) == 1 else "there are no such files"
        raise InputError(
            f"{', '.join(missing)}: {there}; expected LLaVA JSON with its pictures, or yours with {option}"
        )


def nano_data(config: TrainConfig, folder: Path) -> dict[str, Path]:
    """The nano world's files (stage1, stage2, heldout) in ``folder``, drawn where missing."""
    from parrot_train.nano.write import ensure_data

    return ensure_data(folder, config.nano, workers=worker_count(config.data))


def _nano_file(config: TrainConfig, stage: Stage) -> Path:
    folder = Path(config.data.nano_folder)
    if stage != EXTEND:
        return nano_data(config, folder)[section_of(stage)]
    from parrot_train.nano.further import ensure_further_data

    # Beside the six languages' files, which are drawn as a whole or not at all.
    languages = config.extend.languages
    beside = folder.with_name(f"{folder.name}-{'-'.join(languages)}")
    return ensure_further_data(beside, languages, config.nano, workers=worker_count(config.data))
