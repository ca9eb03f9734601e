"""The Trainer's arguments: what the stage's settings do not say."""

from parrot_train.arguments import keep_one_device, training_arguments
from parrot_train.config_files import load_config


def test_without_a_launcher_one_device_has_the_whole_batch(tmp_path):
    """DataParallel would cut five pictures and four prompts in two halves each, which do not belong together."""
    stage = load_config("nano").stage2
    arguments = training_arguments(tmp_path, stage, world_size=1, workers=0)
    arguments._n_gpu = 4  # as transformers sets it on such a machine
    assert arguments.train_batch_size == 4 * stage.micro_batch
    keep_one_device(arguments)
    assert (arguments.n_gpu, arguments.train_batch_size) == (1, stage.micro_batch)
