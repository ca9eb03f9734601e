"""What a calibration of a large model takes at most, and whether that grows with the model's layers.

    python benchmarks/calibration_memory.py parrot-qwen2-7b --layers 1,3

writes checkpoints of random weights in the shapes of an architecture, with so many layers of its language model, three
of its encoder and a small vocabulary, so that a layer is all there is; then calibrates each on nano's pictures, and
prints minutes and peak memory as Markdown.
"""

import multiprocessing
import shutil
import sys
from pathlib import Path

import click

from parrot_benchmarks.export_streaming import CLI, timed
from parrot_runtime.command import ParrotCommand

ENCODER_LAYERS, VOCABULARY = 3, 4096


def write_model(architecture: str, layers: int, folder: Path) -> None:
    """A checkpoint in ``folder``, bfloat16; one that is there is kept."""
    from parrot_train.architectures import named_architecture
    from parrot_train.random_checkpoint import write_random_checkpoint

    if folder.exists():
        return
    config = named_architecture(architecture)
    config.vision_config.num_hidden_layers = ENCODER_LAYERS
    text = config.text_config
    text.num_hidden_layers, text.vocab_size = layers, VOCABULARY
    text.layer_types = text.layer_types[:layers]
    write_random_checkpoint(config, folder)


@click.command(cls=ParrotCommand, help=__doc__.splitlines()[0])
@click.argument("architecture")
@click.option("--layers", default="1,3", show_default=True, help="Of the language model, one after another.")
@click.option("--method", default="awq+gptq", show_default=True, help="Of parrot-calibrate --int4.")
@click.option("--per-language", default=1, show_default=True, help="Pictures of each language.")
@click.option("--threads", default=2, show_default=True, help="Of onnxruntime.")
@click.option("--folder", type=click.Path(path_type=Path), default="runs/calibration", show_default=True, help="Where.")
def main(architecture: str, layers: str, method: str, per_language: int, threads: int, folder: Path) -> None:
    """Measure and print."""
    click.echo("| layers | weights, GiB | minutes | peak memory, GiB |\n|---:|---:|---:|---:|")
    for count in map(int, layers.split(",")):
        checkpoint = folder / f"{architecture}-{count}"
        # In a process of its own: a child's peak memory counts what its parent had when it was started.
        writer = multiprocessing.get_context("spawn").Process(
            target=write_model, args=(architecture, count, checkpoint)
        )
        writer.start()
        writer.join()
        if writer.exitcode:
            sys.exit(f"{checkpoint}: could not be written")
        size = sum(path.stat().st_size for path in checkpoint.glob("*.safetensors")) / 2**30
        scales = folder / f"scales-{count}"
        shutil.rmtree(scales, ignore_errors=True)
        options = ("--int4", method, "--per-language", per_language, "--threads", threads)
        seconds, memory = timed(CLI / "parrot-calibrate", checkpoint, "-o", scales, *options)
        click.echo(f"| {count} | {size:.2f} | {seconds / 60:.1f} | {memory / 1024:.2f} |")


if __name__ == "__main__":
    main()
