"""What every Parrot command shares: one-line errors, exit codes, ``-v`` for the traceback."""

import sys
import traceback
from collections.abc import Callable
from typing import Any

import click

from parrot_runtime.errors import ParrotError


def verbose_option(function: Callable) -> Callable:
    """``-v/--verbose``: show the traceback of an error instead of its one line."""

    def remember(context: click.Context, _parameter: click.Parameter, value: bool) -> None:
        context.find_root().meta["parrot.verbose"] = context.find_root().meta.get("parrot.verbose", False) or value

    return click.option(
        "-v", "--verbose", is_flag=True, expose_value=False, callback=remember, help="Show the traceback of an error."
    )(function)


class _OneLineErrors:
    """Mixed into click's command classes: a ParrotError becomes one line on stderr and its exit code."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except KeyboardInterrupt:
            click.echo(err=True)
            sys.exit(130)
        except ParrotError as error:
            if context.find_root().meta.get("parrot.verbose"):
                click.echo(traceback.format_exc(), err=True, nl=False)
            message = " ".join(str(error).splitlines()) if not getattr(error, "keep_lines", False) else str(error)
            click.echo(f"{context.find_root().info_name}: {message}", err=True)
            sys.exit(error.exit_code)


class ParrotCommand(_OneLineErrors, click.Command):
    """A click command with Parrot's error rules."""


class ParrotGroup(_OneLineErrors, click.Group):
    """A click group with Parrot's error rules; its commands inherit them."""

    command_class = ParrotCommand
