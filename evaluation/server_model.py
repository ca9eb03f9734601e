"""The model of an OpenAI-compatible server: the picture as a data URI, the question as text, temperature 0.

What answers is on the other side of a wire: its weights, its chat template and how it makes pictures ready can change
without a trace here, so the fingerprint is that of the address, the model's name and what is asked of it, no more.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from contextlib import closing

from parrot_evaluation.journal import REFUSED
from parrot_evaluation.models import Model, ModelOptions, Note, named
from parrot_evaluation.openai_client import ChatClient, Message, NoReplyError, user_turn
from parrot_evaluation.runner import Question, Response
from parrot_runtime.endpoint import Options, RejectedError, Settings, read_fields, read_key
from parrot_runtime.errors import InputError, ParrotError

OPTIONS = Options(address="--model", model="--model-name", key="--api-key-env", extra="eval")
_SETTINGS = Settings("http://localhost/v1")


def open_server(url: str, options: ModelOptions, *, max_new_tokens: int, note: Note = lambda _line: None) -> Model:
    """The model ``options.model_name`` of the server at ``url``. Nothing is asked yet. Raises InputError."""
    if not options.model_name:
        raise InputError(f"--model {url}: a server may have several models; name the one to measure with --model-name")
    timeout, retries = options.timeout, options.retries
    settings = Settings(
        url,
        _SETTINGS.timeout if timeout is None else timeout,
        _SETTINGS.retries if retries is None else retries,
        options=OPTIONS,
    )
    fields = read_fields(options.body)
    client = ChatClient(
        settings,
        options.model_name,
        key=read_key(options.api_key_env, OPTIONS.key),
        concurrency=options.together("server"),
        requests_per_minute=options.requests_per_minute,
        fields=fields,
    )

    def stream(questions: Iterable[Question]) -> Iterator[Response]:
        names: list[str] = []

        def conversations() -> Iterator[list[Message]]:
            for question in questions:
                names.append(question.name)
                yield [user_turn(question.text, [question.image])]

        try:
            # Closed before the client is: its threads would else ask on over connections that are no longer theirs.
            with closing(client.replies(conversations(), max_tokens=max_new_tokens)) as replies:
                for number, reply in enumerate(replies):
                    if not isinstance(reply, RejectedError):
                        yield Response(reply.text, reply.finish)
                    elif options.count_refused:
                        yield Response("", REFUSED)
                    else:
                        raise named(InputError(f"the server refuses it ({reply})"), names[number]) from reply
        except NoReplyError as error:
            # One picture may be what the server stumbles over, each time.
            raise ParrotError(f"asking {names[error.conversation]}: {error}") from error

    note(
        f"{url} answers as '{options.model_name}'; a server's model can change unseen, and answers that are kept are "
        "not asked again: after a change give --force"
    )
    asked = json.dumps([settings.url, options.model_name, fields], sort_keys=True)
    return Model(options.model_name, hashlib.sha256(asked.encode()).hexdigest(), stream, client.close)
