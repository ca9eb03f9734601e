"""The configuration: defaults, files, overrides, and what is refused."""

import dataclasses

import pytest
import yaml

from parrot_runtime.errors import InputError
from parrot_runtime.strict import from_mapping
from parrot_train.config import TrainConfig
from parrot_train.config_files import load_config, shipped_configs, to_mapping, to_yaml


def test_defaults_are_the_papers_rules():
    config = TrainConfig()
    assert (config.stage1.learning_rate, config.stage1.global_batch) == (1e-3, 256)
    assert (config.stage2.learning_rate, config.stage2.global_batch) == (2e-5, 128)
    for stage in (config.stage1, config.stage2):
        assert (stage.epochs, stage.warmup_ratio, stage.weight_decay, stage.clip) == (1.0, 0.03, 0.0, 1.0)
        assert (stage.scheduler, stage.precision, stage.gradient_checkpointing) == ("cosine", "bf16", True)
    assert config.data.max_length == 2048
    assert (config.model.experts, config.model.expert_kind, config.model.residual) == (6, "mlp", "paper")


@pytest.mark.parametrize("name", shipped_configs())
def test_every_shipped_config_loads_and_names_its_launch(name):
    from importlib import resources

    text = (resources.files("parrot_train.configs") / f"{name}.yaml").read_text(encoding="utf-8")
    assert text.splitlines()[0] == f"# parrot-train stage1 --config {name}"
    assert load_config(name).name == name


def test_the_printed_config_reads_back_equal(tmp_path):
    config = load_config("nano", ["stage2.learning_rate=3e-5", "data.stage1=[a.json, b.json]", "stage1.max_steps=7"])
    path = tmp_path / "own.yaml"
    path.write_text(to_yaml(config))
    assert load_config(str(path)) == config
    assert from_mapping(TrainConfig, to_mapping(config), where="x") == config
    assert config.stage2.learning_rate == 3e-5
    assert config.data.stage1 == ("a.json", "b.json")


def test_every_setting_is_documented():
    def check(section):
        for entry in dataclasses.fields(section):
            value = getattr(section, entry.name)
            if dataclasses.is_dataclass(value):
                check(value)
            else:
                assert len(entry.metadata["doc"]) > 10, entry.name

    check(TrainConfig())


def test_a_section_inside_a_section_prints_and_reads_back(tmp_path):
    config = load_config("nano", ["stage2.lora.rank=16", "stage2.lora.targets=[q_proj, down_proj]"])
    assert config.stage2.lora.targets == ("q_proj", "down_proj")
    path = tmp_path / "own.yaml"
    path.write_text(to_yaml(config))
    assert load_config(str(path)) == config


def test_numbers_without_a_dot_are_numbers(tmp_path):
    # YAML 1.1 reads 1e-3 as text; PyYAML does so too. Here it is what its author meant.
    assert yaml.safe_load("1e-3") == "1e-3"
    path = tmp_path / "own.yaml"
    path.write_text("stage1: {learning_rate: 1e-3, warmup_ratio: 5E-2}")
    assert load_config(str(path)).stage1.learning_rate == 0.001


def test_a_file_without_a_name_names_the_runs_itself(tmp_path):
    for file, name in (("first.yaml", "first"), ("my try, 2.yml", "my-try-2"), ("benimşehrim.yaml", "benimşehrim")):
        (tmp_path / file).write_text("stage1: {epochs: 2}")
        assert load_config(str(tmp_path / file)).name == name
    (tmp_path / "first.yaml").write_text("name: other")
    assert load_config(str(tmp_path / "first.yaml")).name == "other"


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("stage1.learing_rate=1", "did you mean 'learning_rate'"),
        ("stag1.learning_rate=1", "did you mean 'stage1'"),
        ("stage1=3", "is a section"),
        ("stage1.learning_rate.x=3", "has none below it"),
        ("stage1.learning_rate", "expected section.key=value"),
        ("stage1.learning_rate=fast", "expected float, got 'fast'"),
        ("stage1.learning_rate=-1", "above 0"),
        ("stage1.save_steps=1.5", "expected int, got 1.5"),
        ("stage1.global_batch=41", "a multiple of micro_batch ("),
        ("stage2.scheduler=cosin", "did you mean 'cosine'"),
        ("data.stage1=one.json", "expected"),
        ("data.max_bad_fraction=1.0", "below 1"),
        ("name=a/b", "letters, digits"),
        ("stage1.clip={", "not valid YAML"),
    ],
)
def test_a_bad_override_says_what_was_expected(override, words):
    with pytest.raises(InputError) as caught:
        load_config("nano", [override])
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_names_files_and_keys_are_refused(tmp_path):
    with pytest.raises(InputError, match="did you mean 'nano'"):
        load_config("nanno")
    with pytest.raises(InputError, match="no such file"):
        load_config(str(tmp_path / "none.yaml"))
    path = tmp_path / "bad.yaml"
    for text, words in (
        ("modell: {}", "did you mean 'model'"),
        ("- 1", "expected a mapping"),
        ("name: a\nname: b", "stands twice"),
        ("model: {experts: yes}", "expected int"),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=words):
            load_config(str(path))
