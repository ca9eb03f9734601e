"""``optimum-cli export parrot``: parrot-export, where users of optimum look for it.

optimum imports every module of the namespace ``optimum.commands.register`` at each start of its command line, so
nothing but click stands at the top of what is imported here. The arguments are those of ``parrot-export``, read off its
own declaration; they go to it as they came.
"""

from argparse import ArgumentParser

import click
from optimum.commands.base import BaseOptimumCLICommand, CommandInfo
from optimum.commands.export.base import ExportCommand

from parrot_export.cli import export, main


class ParrotExportCommand(BaseOptimumCLICommand):
    """The default command of ``parrot-export``, as one of optimum's."""

    COMMAND = CommandInfo(name="parrot", help="Export a Parrot checkpoint to ONNX graphs and TensorRT engines.")

    @staticmethod
    def parse_args(parser: ArgumentParser) -> None:
        """Declare the arguments; their values are checked by ``parrot-export``."""
        parser.description = export.help
        for parameter in export.params:
            if isinstance(parameter, click.Argument):
                parser.add_argument(parameter.name, nargs="?", default=None)
                continue
            # `--verify` and `--no-verify` are two arguments to argparse, and reach parrot-export as they were given.
            for names, text in ((parameter.opts, parameter.help), (parameter.secondary_opts, None)):
                if not names:
                    continue
                place = {"dest": max(names, key=len), "default": None, "help": text and text.replace("%", "%%")}
                if parameter.is_flag:
                    parser.add_argument(*names, action="store_true", **place)
                else:
                    parser.add_argument(*names, metavar=parameter.metavar or parameter.name.upper(), **place)

    def run(self) -> None:
        """Run ``parrot-export`` with what was given; exits with its code."""
        given = {name: value for name, value in vars(self.args).items() if name.startswith("--") and value is not None}
        options = [name if value is True else f"{name}={value}" for name, value in given.items()]
        checkpoint = [] if self.args.checkpoint is None else ["--", self.args.checkpoint]
        main(["export", *options, *checkpoint], prog_name="optimum-cli export parrot")


REGISTER_COMMANDS = [(ParrotExportCommand, ExportCommand)]
