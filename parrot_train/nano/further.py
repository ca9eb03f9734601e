"""Data of the nano world in further languages, for extending a model that has learnt its six.

The six languages' files are untouched by it. Training: scenes of a stream of their own. Evaluation: the same held-out
pictures and questions that the six languages are asked.
"""

from collections.abc import Sequence
from functools import partial
from itertools import islice
from pathlib import Path

from parrot_runtime.errors import InputError
from parrot_train.config import EXTEND, NanoDataConfig
from parrot_train.nano import world
from parrot_train.nano.grammar import GRAMMARS
from parrot_train.nano.scenes import scenes
from parrot_train.nano.write import SHARES, question_record, write_part


def ensure_further_data(folder: Path, languages: Sequence[str], config: NanoDataConfig, *, workers: int) -> Path:
    """Write questions in ``languages``, as many in each, under ``folder`` unless they are there; their JSON file.

    They are asked as in stage 2, about ``config.extend_scenes`` training scenes, of which the six languages have the
    share ``config.extend_replay``, in stage 2's proportions. Raises InputError for a language that the nano world has
    no grammar of, and as ``world.ensure`` does.
    """
    for code in languages:
        if code not in GRAMMARS:
            raise InputError(
                f"the nano world does not speak '{code}', only {', '.join(GRAMMARS)}; give LLaVA JSON with --data"
            )
    replay = config.extend_replay
    shares = {code: replay * share for code, share in SHARES.items() if replay}
    shares |= {code: (1 - replay) / len(languages) for code in languages}
    wanted = {"format": 1, "seed": config.seed, "scenes": config.extend_scenes, "shares": shares}

    def draw(beside: Path) -> None:
        part = list(islice(scenes("train", seed=f"{EXTEND}/{config.seed}"), config.extend_scenes))
        record_of = partial(question_record, shares=shares)
        write_part(beside, EXTEND, part, record_of, seed=config.seed, workers=workers)

    world.ensure(folder, wanted, draw)
    return folder / f"{EXTEND}.json"
