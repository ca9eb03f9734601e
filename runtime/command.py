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
    """Mixed into click's command classes: an error becomes one line on stderr and its exit code."""

    def invoke(self, context: click.Context) -> Any:
        root = context.find_root()
        verbose = root.meta.get("parrot.verbose", False)
        try:
            return super().invoke(context)
        except KeyboardInterrupt:
            click.echo(err=True)
            sys.exit(130)
        except ParrotError as error:
            if verbose:
                click.echo(traceback.format_exc(), err=True, nl=False)
            message = " ".join(str(error).splitlines()) if not getattr(error, "keep_lines", False) else str(error)
            click.echo(f"{root.info_name}: {message}", err=True)
            sys.exit(error.exit_code)
        except Exception as error:
            # Click's own, and a reader that left, are click's business; the rest nobody foresaw.
            if verbose or isinstance(
                error, (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError)
            ):
                raise
            message = " ".join(f"{type(error).__name__}: {error}".split())
            click.echo(f"{root.info_name}: {message}; run again with -v for where it happened", err=True)
            raise SystemExit(1) from error


class ParrotCommand(_OneLineErrors, click.Command):
    """A click command with Parrot's error rules."""


class ParrotGroup(_OneLineErrors, click.Group):
    """A click group with Parrot's error rules; its commands inherit them."""

    command_class = ParrotCommand


class DefaultGroup(ParrotGroup):
    """A group whose first command need not be named: ``parrot-export --fp16`` is ``parrot-export export --fp16``.

    ``default``, a class attribute, is that command's name; its options stand in the group's help, where people look
    for them.
    """

    default: str

    def parse_args(self, context: click.Context, arguments: list[str]) -> list[str]:
        own = {name for parameter in self.get_params(context) for name in (*parameter.opts, *parameter.secondary_opts)}
        first = next((argument for argument in arguments if argument not in ("-v", "--verbose")), None)
        if first is None or (first not in self.commands and first not in own):
            arguments = [self.default, *arguments]
        return super().parse_args(context, arguments)

    def format_options(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        command = self.commands[self.default]
        options = [option for option in command.params if isinstance(option, click.Option) and option.name != "verbose"]
        with formatter.section(f"Options of {self.default}"):
            formatter.write_dl([record for option in options if (record := option.get_help_record(context))])
        super().format_options(context, formatter)
