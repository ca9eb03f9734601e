"""How long an export takes, and how much memory, against copying the same bytes.

    python benchmarks/export_streaming.py parrot-qwen2-7b --rounds 2

writes a checkpoint of random weights (bfloat16), then in every round copies it with ``cp`` and exports it at fp16, each
from a cold page cache where the system lets us drop it (root), and prints seconds, their ratio, and the exporter's peak
memory. ``--folder`` needs room for three times the checkpoint. Nothing is verified: torch would hold the whole model.
"""

import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import click

from parrot_runtime.command import ParrotCommand

CLI = Path(sys.executable).parent


def timed(*command: object) -> tuple[float, float]:
    """Seconds that ``command`` takes, with cold caches where they can be had, and the MiB it needs at most."""
    subprocess.run(["sync"], check=True)
    try:
        Path("/proc/sys/vm/drop_caches").write_text("1")
    except OSError:
        click.echo("the page cache could not be dropped: reading is from memory", err=True)
    start = time.monotonic()
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{command[0]} failed")
    return time.monotonic() - start, usage.ru_maxrss / 1024


@click.command(cls=ParrotCommand, help=__doc__.splitlines()[0])
@click.argument("architecture")
@click.option("--rounds", default=2, show_default=True, help="How often each is done, in turn.")
@click.option("--folder", type=click.Path(path_type=Path), default="runs/streaming", show_default=True, help="Where.")
def main(architecture: str, rounds: int, folder: Path) -> None:
    """Measure and print."""
    checkpoint, bundle, copy = (folder / name for name in ("checkpoint", "bundle", "copy"))
    subprocess.run([CLI / "parrot-train", "random", architecture, "-o", checkpoint], check=True)
    ratios = []
    for _ in range(rounds):
        copying, _ = timed("cp", "-r", checkpoint, copy)
        shutil.rmtree(copy)
        exporting, memory = timed(
            CLI / "parrot-export", checkpoint, "-o", bundle, "--fp16", "--target", "cpu", "--no-verify", "--force"
        )
        ratios.append(exporting / copying)
        click.echo(f"cp {copying:.1f} s, export {exporting:.1f} s, ratio {ratios[-1]:.2f}, peak {memory:,.0f} MiB")
    click.echo(f"median ratio {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
