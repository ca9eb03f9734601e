"""What all commands do with an error."""

import click
import pytest
from click.testing import CliRunner

from parrot_runtime.command import ParrotCommand, ParrotGroup, verbose_option
from parrot_runtime.errors import InputError, ParrotError


def _command(error):
    @click.command(cls=ParrotCommand)
    @verbose_option
    def tool():
        raise error

    return tool


def _invoke(error, *arguments):
    return CliRunner().invoke(_command(error), arguments)


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (InputError("a.png: no; try b.png"), 2, "tool: a.png: no; try b.png\n"),
        (ParrotError("two\nlines"), 1, "tool: two lines\n"),
        (KeyError("x"), 1, "tool: KeyError: 'x'; run again with -v for where it happened\n"),
        (OSError(28, "No space"), 1, "tool: OSError: [Errno 28] No space; run again with -v for where it happened\n"),
        (KeyboardInterrupt(), 130, "\n"),
    ],
)
def test_one_line_and_an_exit_code(error, code, line):
    result = _invoke(error)
    assert (result.exit_code, result.stdout, result.stderr) == (code, "", line)


def test_verbose_shows_the_traceback():
    result = _invoke(InputError("no"), "-v")
    assert result.exit_code == 2
    assert result.stderr.startswith("Traceback")
    assert result.stderr.endswith("tool: no\n")
    result = _invoke(KeyError("x"), "-v")
    assert isinstance(result.exception, KeyError)


def test_clicks_own_errors_stay_clicks():
    result = _invoke(click.UsageError("wrong"))
    assert result.exit_code == 2
    assert "Usage: tool" in result.stderr


def test_groups_hand_it_down():
    @click.group(cls=ParrotGroup)
    def tools():
        pass

    @tools.command()
    def part():
        raise InputError("no")

    result = CliRunner().invoke(tools, ["part"])
    assert (result.exit_code, result.stderr) == (2, "tools: no\n")
