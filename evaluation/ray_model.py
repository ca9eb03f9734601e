"""A bundle or a checkpoint on the devices of a Ray cluster: an actor per GPU or, without any, per so many CPUs.

Actors answer chunks of questions; the driver alone keeps what is answered, in the questions' order. An actor that dies
is replaced and its chunk is asked again by whoever is free, so nothing is lost and nothing is kept twice. The model's
folder must be at the same path on every node, on a shared file system or copied: every actor compares what it finds
there, and what it runs it with, with the others, and answers nothing where they differ.

The one place of the room that imports ray, and hands it on to :class:`~parrot_evaluation.ray_pool.Pool`.
"""

import logging
import re
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

from parrot_evaluation.models import CONFIG_NAME, Model, ModelOptions, Note
from parrot_evaluation.ray_pool import Pool
from parrot_evaluation.ray_worker import Request, digest_of
from parrot_runtime.errors import InputError

# CPUs of an actor where there is no GPU and nothing else is said.
CPUS = 2
_PLACE = re.compile(r"(?:ray://)?(.+):(\d+)")


def open_on_ray(model: str, options: ModelOptions, *, max_new_tokens: int, note: Note = lambda _line: None) -> Model:
    """The model in the folder ``model`` on the cluster at ``options.ray``.

    Raises InputError where ray is not installed, there is no such cluster or no room in it, or the nodes do not all
    have the same model; ParrotError where all its devices stay in use.
    """
    try:
        import ray
    except ImportError as error:
        raise InputError("ray is not installed; run `pip install 'parrot-edge[ray]'` on every node") from error
    folder = str(Path(model).resolve())
    digest = digest_of(folder)
    ours = not ray.is_initialized()
    if ours:
        _connect(options.ray)
    try:
        count, resources, where = _devices(ray, options.ray_cpus)
        request = Request(
            folder,
            _for_actors(options),
            max_new_tokens,
            digest,
            None if "num_gpus" in resources else int(resources["num_cpus"]),
        )
        pool = Pool(ray, request, count, resources, note)
        pool.start()
    except BaseException:
        if ours:
            ray.shutdown()
        raise
    note(f"{count} {'actor' if count == 1 else 'actors'} on Ray, {where}")

    def close() -> None:
        pool.close()
        if ours:
            ray.shutdown()

    return Model(pool.identity["name"], pool.identity["fingerprint"], pool.stream, close)


def _for_actors(options: ModelOptions) -> ModelOptions:
    """``options`` as an actor takes them: it has another working folder. A hub name is no folder and stays one."""
    tower = options.vision_tower
    if tower is not None and (tower / CONFIG_NAME).is_file():
        tower = tower.resolve()
    return replace(options, ray=None, ray_cpus=None, vision_tower=tower)


def _connect(address: str) -> None:
    import ray

    try:
        # Ray ends the whole process where nothing listens at an address, so that is found out before.
        if place := _PLACE.fullmatch(address):
            socket.create_connection((place[1].strip("[]"), int(place[2])), timeout=10).close()
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, OverflowError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"--ray {address}: no cluster answers there ({reason}); start one with `ray start --head`, or give 'local'"
        ) from error


def _devices(ray: Any, cpus: int | None) -> tuple[int, dict[str, float], str]:
    """How many actors there is room for, what each takes, and that in words. Raises InputError where there is none."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus = int(sum(node.get("GPU", 0) for node in nodes))
    if gpus and cpus is None:
        return gpus, {"num_gpus": 1, "num_cpus": 1}, "one per GPU"
    each = cpus or CPUS
    room = sum(int(node.get("CPU", 0) // each) for node in nodes)
    if not room:
        most = int(max((node.get("CPU", 0) for node in nodes), default=0))
        raise InputError(
            f"no node of the Ray cluster has {each} CPUs, the most are {most}; give --ray-cpus {most or 1}"
        )
    return room, {"num_cpus": each}, f"one per {each} CPUs"
