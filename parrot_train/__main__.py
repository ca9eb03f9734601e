"""``python -m parrot_train``, for launchers that want a module."""

from parrot_train.cli import main

main(prog_name="parrot-train")
