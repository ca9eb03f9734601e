"""``parrot-run``: ask questions about pictures."""

import sys

import click
from click.core import ParameterSource

from parrot_runtime.command import ParrotCommand, verbose_option
from parrot_runtime.names import BACKENDS, REROUTES

_EPILOG = """\b
Examples:
  parrot-run photo.jpg "Görselde ne var?"
  parrot-run before.png after.png "What has changed?"
  curl -s https://example.org/cat.jpg | parrot-run - "这是什么？" --stats
  parrot-run photo.jpg --questions questions.txt --json
  parrot-run -i photo.jpg
"""


@click.command(cls=ParrotCommand, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("arguments", nargs=-1, metavar="IMAGE... QUESTION...")
@click.option("-i", "--interactive", is_flag=True, help="A conversation: further questions from stdin; /help there.")
@click.option("--image", "images", multiple=True, metavar="FILE", help="A picture, whatever it is called.")
@click.option(
    "-q", "--question", "questions", multiple=True, metavar="TEXT", help="A question; - reads them from stdin."
)
@click.option("--questions", "question_file", metavar="FILE", help="Questions from a UTF-8 file, one per line.")
@click.option("--text-only", is_flag=True, help="Ask without a picture, on purpose.")
@click.option(
    "--bundle", metavar="FOLDER", help="The bundle to run.  [default: the newest in ./bundles, or the shipped one]"
)
@click.option(
    "--backend",
    type=click.Choice(BACKENDS),
    default="auto",
    show_default=True,
    help="What runs it; auto takes TensorRT where the bundle has engines for the GPU here.",
)
@click.option("--trust-engines", is_flag=True, help="Load TensorRT engines that another machine built: they are code.")
@click.option("--max-new-tokens", default=512, show_default=True, help="The longest answer.")
@click.option("--temperature", default=0.0, show_default=True, help="0 is greedy; higher is more varied.")
@click.option("--top-p", default=1.0, show_default=True, help="Sample among the likeliest tokens up to this sum.")
@click.option("--repetition-penalty", default=1.0, show_default=True, help="Above 1 repeats less.")
@click.option("--seed", type=int, help="Make sampling repeatable.")
@click.option("--max-pixels", default=16_000_000, show_default=True, help="The largest picture that is read.")
@click.option(
    "--choices", metavar="A,B,...", help="Score these as answers instead of generating one; quotes hold a comma."
)
@click.option(
    "--reroute",
    type=click.Choice(REROUTES),
    default="auto",
    show_default=True,
    help="In a conversation, when a new question routes the pictures anew.",
)
@click.option(
    "--lookup/--no-lookup",
    default=True,
    show_default=True,
    help="Several tokens in one step where an answer repeats its prompt; the words are the same but for near ties.",
)
@click.option("--threads", type=click.IntRange(min=1), help="Threads per graph of onnxruntime.  [default: all cores]")
@click.option("--stats", is_flag=True, help="Time of each stage, speed, and routing over the experts, on stderr.")
@click.option("--explain", is_flag=True, help="Which words drew the router, and what each expert changes, on stderr.")
@click.option("--json", is_flag=True, help="One JSON object per question on stdout.")
@click.version_option(package_name="parrot-edge")
@verbose_option
@click.pass_context
def main(
    context,
    arguments,
    images,
    questions,
    question_file,
    text_only,
    interactive,
    choices,
    temperature,
    top_p,
    repetition_penalty,
    seed,
    explain,
    **options,
):
    """Ask every QUESTION about all IMAGEs together.

    What exists as a file, is named like a picture, or is - (a picture on stdin) is an IMAGE; everything else is a
    QUESTION. --image and -q leave no doubt.
    """
    for stream in (sys.stdout, sys.stderr):
        # Six languages must come out whatever the locale says.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    from parrot_runtime.run import Settings, check_explain, check_given, collect, run, split_choices
    from parrot_runtime.sampling import Sampling

    given = {name for name in context.params if context.get_parameter_source(name) is ParameterSource.COMMANDLINE}
    check_given(given, choices=choices is not None, interactive=interactive)
    sampling = Sampling(temperature, top_p, repetition_penalty, seed)
    pictures, asked = collect(arguments, images, questions, question_file, text_only=text_only, interactive=interactive)
    settings = Settings(
        sampling=sampling,
        options=split_choices(choices, interactive=interactive),
        explain=check_explain(
            explain,
            choices=choices is not None,
            interactive=interactive,
            text_only=text_only,
            temperature=temperature,
        ),
        **options,
    )
    if interactive:
        from parrot_runtime.interactive import converse

        converse(pictures, asked, settings)
    else:
        run(pictures, asked, settings)
