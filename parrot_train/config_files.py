"""The training configuration as files: YAML, ``--set``, and what ``run.json`` keeps of it.

A YAML file, shipped (``--config nano``) or the user's own (``--config my.yaml``), states only what differs from the
defaults of :mod:`parrot_train.config`; ``--set section.key=value`` changes single settings on top. Unknown names are
refused with the nearest known.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, get_type_hints

import yaml

from parrot_runtime.errors import InputError
from parrot_runtime.strict import from_mapping, nearest
from parrot_train.config import NANO, TrainConfig


class _Loader(yaml.SafeLoader):
    """YAML with two repairs: ``1e-3`` is a number (YAML 1.1 reads text), and a key given twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = [key.value for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"the key '{key}' stands twice", node.start_mark)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {key: list(value) for key, value in yaml.SafeLoader.yaml_implicit_resolvers.items()}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


_NO_NAME = re.compile(r"[^\w.-]+")


def _parse(text: str, where: str) -> Any:
    try:
        return yaml.load(text, _Loader)  # a SafeLoader
    except yaml.YAMLError as error:
        raise InputError(f"{where}: not valid YAML: {' '.join(str(error).split())}") from error


def shipped_configs() -> list[str]:
    """Names that ``--config`` accepts without a file."""
    folder = resources.files("parrot_train.configs")
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def load_config(name: str = NANO, overrides: Sequence[str] = ()) -> TrainConfig:
    """Read a shipped configuration, a YAML file or a run's ``run.json``, and apply ``section.key=value`` overrides.

    Raises InputError for an unknown name, key or value, naming the nearest known one.
    """
    if name.endswith((".yaml", ".yml", ".json")) or "/" in name:
        path = Path(name)
        if not path.is_file():
            raise InputError(f"--config {name}: there is no such file")
        try:
            text = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"--config {name}: cannot be read as UTF-8 text ({error})") from error
    else:
        known = shipped_configs()
        if name not in known:
            raise InputError(
                f"--config {name}: expected a YAML file, a run.json, or one of {', '.join(known)}{nearest(name, known)}"
            )
        text = (resources.files("parrot_train.configs") / f"{name}.yaml").read_text(encoding="utf-8")
    data = _parse(text, name)
    if not isinstance(data, Mapping):
        raise InputError(f"--config {name}: expected a mapping of settings, got {type(data).__name__}")
    if name.endswith(".json"):
        data = data.get("settings")
        if not isinstance(data, Mapping):
            raise InputError(f"--config {name}: has no 'settings'; expected the run.json of a run, or a YAML file")
    # Two files of a user's without a name would share one run folder.
    data = {"name": _NO_NAME.sub("-", Path(name).stem)} | dict(data)
    for override in overrides:
        _apply(data, override)
    return from_mapping(TrainConfig, data, where=f"config {name}")


def _apply(data: dict, override: str) -> None:
    """Set one ``section.key=value`` in the nested ``data``; the path is checked here, the type by the reader."""
    path, separator, text = override.partition("=")
    if not separator:
        raise InputError(f"--set {override}: expected section.key=value, for example stage1.learning_rate=1e-3")
    kind: Any = TrainConfig
    names = path.strip().split(".")
    for depth, name in enumerate(names):
        if not dataclasses.is_dataclass(kind):
            raise InputError(f"--set {override}: '{'.'.join(names[:depth])}' is a setting and has none below it")
        hints = get_type_hints(kind)
        if name not in hints:
            raise InputError(f"--set {override}: unknown key '{name}'{nearest(name, hints)}")
        kind = hints[name]
    if dataclasses.is_dataclass(kind):
        raise InputError(
            f"--set {override}: '{path}' is a section; name one of {', '.join(get_type_hints(kind))} in it"
        )
    for name in names[:-1]:
        section = data.get(name)
        data[name] = dict(section) if isinstance(section, Mapping) else {}
        data = data[name]
    data[names[-1]] = _parse(text, f"--set {override}")


def to_mapping(config: TrainConfig) -> dict[str, Any]:
    """Plain data that ``from_mapping`` reads back to an equal configuration (tuples become lists)."""
    return {key: _plain(value) for key, value in dataclasses.asdict(config).items()}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value


def to_yaml(config: TrainConfig) -> str:
    """The whole configuration as YAML, every setting with its documentation."""
    lines = [f"# parrot-train stage1 --config {config.name}.yaml"]
    for entry in dataclasses.fields(config):
        value = getattr(config, entry.name)
        if not dataclasses.is_dataclass(value):
            lines.append(_yaml_line(entry, value, ""))
            continue
        lines += ["", *_yaml_section(entry.name, value, "")]
    return "\n".join(lines) + "\n"


def _yaml_section(name: str, section: Any, indent: str) -> list[str]:
    lines = [f"{indent}# {(type(section).__doc__ or '').splitlines()[0]}", f"{indent}{name}:"]
    for entry in dataclasses.fields(section):
        value = getattr(section, entry.name)
        if dataclasses.is_dataclass(value):
            lines += _yaml_section(entry.name, value, indent + "  ")
        else:
            lines.append(_yaml_line(entry, value, indent + "  "))
    return lines


def _yaml_line(entry: dataclasses.Field, value: Any, indent: str) -> str:
    text = yaml.safe_dump(_plain(value), default_flow_style=True, allow_unicode=True, width=1000)
    text = text.removesuffix("\n").removesuffix("\n...")
    return f"{indent}{entry.name}: {text}  # {entry.metadata['doc']}"
