"""Ask questions about pictures: ``Parrot.load(bundle).ask("photo.jpg", "Görselde ne var?").text``."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from parrot_runtime.answer import Answer, AnswerStream, Features, Tokens
from parrot_runtime.backends.base import Backend
from parrot_runtime.backends.choose import Note, choose_engines, create_backend
from parrot_runtime.cache import Picture
from parrot_runtime.chat import Chat
from parrot_runtime.composer import Composer, Routed
from parrot_runtime.embedding import Embedding
from parrot_runtime.errors import BundleError, InputError, ParrotError
from parrot_runtime.generation import MAX_NEW_TOKENS, Request, Slots, generate
from parrot_runtime.image import MAX_PIXELS, preprocess, read_image
from parrot_runtime.integrity import verify_files
from parrot_runtime.manifest import EMBEDDING_NAME, TOKENIZER_NAME, Manifest, load_manifest
from parrot_runtime.names import BackendName, Reroute
from parrot_runtime.options import Choice, OptionScorer
from parrot_runtime.prompt import Turn, check_question
from parrot_runtime.sampling import GREEDY, Sampler, Sampling
from parrot_runtime.stats import Stats
from parrot_runtime.templates import prompt_encoder
from parrot_runtime.tokenizer import Detokenizer, load_tokenizer

if TYPE_CHECKING:
    from typing import TypeAlias

    from PIL import Image
    from tokenizers import Tokenizer

    from parrot_runtime.explain import Explanation
    from parrot_runtime.scheduler import Scheduler

    # One picture: a path, the bytes of a file, a Pillow image, or one made ready by Parrot.picture.
    Source: TypeAlias = str | Path | bytes | Image.Image | Picture
    # The pictures of a question: none, one, or several in their order.
    Images: TypeAlias = Source | list[Source] | tuple[Source, ...] | None


class Parrot:
    """A bundle, loaded. Methods may be called from several threads.

    ``max_len`` is the longest sequence, prompt and answer together; ``backend`` names what runs the graphs.
    """

    def __init__(
        self,
        manifest: Manifest,
        tokenizer: Tokenizer,
        embedding: Embedding,
        backend: Backend,
        *,
        lookup: bool = True,
    ) -> None:
        self.manifest = manifest
        self.backend = backend.name
        self.max_len = min(manifest.model.max_len, backend.max_len)
        self.load_seconds = 0.0
        self._tokenizer = tokenizer
        self._embedding = embedding
        self._backend = backend
        self._prompts = prompt_encoder(tokenizer, manifest.prompt)
        self._composer = Composer(manifest, self._prompts, embedding, backend, self.max_len, lookup=lookup)
        self._idle_slots: dict[int, Slots] = {}

    @classmethod
    def load(
        cls,
        bundle: str | Path | None = None,
        *,
        backend: BackendName = "auto",
        threads: int | None = None,
        trust_engines: bool = False,
        lookup: bool = True,
        note: Note = lambda _line: None,
    ) -> Parrot:
        """Open the bundle in the folder ``bundle``; without one, the bundle that ``find_bundle`` finds.

        Every file is checked against the manifest's sizes and hashes before anything uses it. ``backend`` is what runs
        it: ``auto`` takes TensorRT where engines for this GPU stand in the bundle, else onnxruntime, and tells ``note``
        why engines are passed over. Those that another machine built are, unless ``trust_engines``. ``threads`` bounds
        the threads of each of onnxruntime's graphs. ``lookup`` lets an answer take several tokens in one step where it
        repeats what the prompt says (see ``parrot_runtime.lookup``). Raises BundleError, InputError when what is to run
        it is not here, and ParrotError when the device fails.
        """
        start = time.perf_counter()
        if threads is not None and threads < 1:
            raise InputError(f"threads is {threads}; expected 1 or more")
        if bundle is None:
            from parrot_runtime.bundles import find_bundle

            bundle = find_bundle(backend=backend).folder
        folder = Path(bundle)
        manifest = load_manifest(folder)
        engines = choose_engines(folder, manifest, backend, trust_engines=trust_engines, note=note)
        with ThreadPoolExecutor(1) as pool:
            checked = pool.submit(verify_files, folder, manifest)
            if engines is None:
                # Importing onnxruntime takes as long as hashing a small bundle: both at once.
                from parrot_runtime.backends.onnxruntime import import_onnxruntime

                import_onnxruntime()
            checked.result()
        tokenizer = load_tokenizer(folder / TOKENIZER_NAME)
        dims = manifest.model
        if tokenizer.get_vocab_size() > dims.vocab_size:
            raise BundleError(
                f"{folder / TOKENIZER_NAME}: {tokenizer.get_vocab_size()} tokens for a model of {dims.vocab_size}; "
                "export the bundle again with the model's own tokenizer"
            )
        embedding = Embedding(folder / EMBEDDING_NAME, vocab_size=dims.vocab_size, hidden_size=dims.hidden_size)
        created = create_backend(folder, manifest, engines, threads=threads)
        parrot = cls(manifest, tokenizer, embedding, created, lookup=lookup)
        parrot.load_seconds = time.perf_counter() - start
        return parrot

    def picture(self, source: Source, *, max_pixels: int = MAX_PIXELS, name: str | None = None) -> Picture:
        """Read a picture once, for several questions. ``name`` is what errors call it. Raises ImageError."""
        if isinstance(source, Picture):
            return source
        return Picture(preprocess(read_image(source, max_pixels=max_pixels, name=name), self.manifest.image))

    def ask(
        self, images: Images, question: str, *, max_new_tokens: int = MAX_NEW_TOKENS, sampling: Sampling = GREEDY
    ) -> Answer:
        """Answer ``question`` about all of ``images`` together; None asks the language model alone.

        The answer has at most ``max_new_tokens`` tokens, and at most what the context leaves. Raises ImageError, and
        TextError for a question that is empty, not Unicode, or too long for the context.
        """
        return self.stream(images, question, max_new_tokens=max_new_tokens, sampling=sampling).answer

    def stream(
        self, images: Images, question: str, *, max_new_tokens: int = MAX_NEW_TOKENS, sampling: Sampling = GREEDY
    ) -> AnswerStream:
        """``ask``, with the text as it comes. What is wrong with the input is raised here, before the first piece."""
        check_question(question)
        return self.chat(images).stream(question, max_new_tokens=max_new_tokens, sampling=sampling)

    def chat(self, images: Images = None, *, reroute: Reroute = "auto") -> Chat:
        """A conversation about ``images``, which stand in its first turn. Raises ImageError."""
        return Chat(self, images, self._alone, reroute)

    def choose(self, images: Images, question: str, options: Sequence[str]) -> Choice:
        """The likeliest of ``options`` as the answer to ``question``, by their first tokens; nothing is generated.

        Raises as ``ask`` does, and InputError for options whose first tokens do not tell them apart.
        """
        scorer = OptionScorer(self._tokenizer, options)
        stats = Stats()
        pictures = self._read(images, stats)
        turns = [Turn("user", check_question(question), len(pictures))]
        request = self._composer.request(pictures, turns, scorer, 1, stats, Routed())
        for _ in self._alone(request):
            pass
        return Choice(scorer.shares, stats, request.routing)

    def explain(
        self, images: Images, question: str, *, max_new_tokens: int = MAX_NEW_TOKENS, sampling: Sampling = GREEDY
    ) -> Explanation:
        """Which words of ``question`` drew the router, where that sent the pictures, and what each expert changes.

        Takes about as long as an answer per expert. Raises as ``ask`` does, InputError without a picture, without
        experts or with a ``sampling`` whose answers differ by chance, and ParrotError when the bundle's router cannot
        be explained.
        """
        from parrot_runtime.explain import check_explainable, explain

        stats = Stats()
        pictures = self._read(images, stats)
        check_explainable(len(pictures), self.manifest.model.experts, sampling)
        turns = [Turn("user", check_question(question), len(pictures))]

        def answer(routed: Routed) -> str:
            choose = Sampler(sampling)
            request = self._composer.request(pictures, turns, choose, max_new_tokens, Stats(), routed)
            return self._stream(request, self._alone(request)).answer.text

        return explain(self._backend, self._tokenizer, self._composer, pictures, turns, answer)

    def features(self, images: Images, question: str) -> Features:
        """The pictures as the decoder would read them under ``question``, before and after the mixture; no answer.

        Raises as ``ask`` does, and InputError without a picture.
        """
        stats, routed = Stats(), Routed()
        pictures = self._read(images, stats)
        if not pictures:
            raise InputError("there is no picture; features are those of pictures")
        turns = [Turn("user", check_question(question), len(pictures))]
        self._composer.request(pictures, turns, Sampler(GREEDY), 1, stats, routed)
        before = self._composer.look(pictures, stats)
        words = self._composer.words(self._composer.encode(turns))
        arrays = (np.asarray(each, np.float32) for each in (before, routed.visual_tokens, words))
        return Features(*arrays, routed.routing)

    def scheduler(self, slots: int = 8) -> Scheduler:
        """Questions from several threads, up to ``slots`` of them answered together; a context manager."""
        if slots < 1:
            raise InputError(f"slots is {slots}; expected 1 or more")
        from parrot_runtime.scheduler import Scheduler

        return Scheduler(self, self._new_slots(slots))

    def ask_batch(
        self,
        questions: Iterable[tuple[Images, str]],
        *,
        slots: int = 4,
        max_new_tokens: int = MAX_NEW_TOKENS,
        sampling: Sampling = GREEDY,
    ) -> list[Answer]:
        """Answer many ``(images, question)``, up to ``slots`` in one decode step; answers in the questions' order.

        Arguments, and what is raised, as of ``answers``.
        """
        return list(self.answers(questions, slots=slots, max_new_tokens=max_new_tokens, sampling=sampling))

    def answers(
        self,
        questions: Iterable[tuple[Images, str]],
        *,
        slots: int = 4,
        max_new_tokens: int = MAX_NEW_TOKENS,
        sampling: Sampling = GREEDY,
    ) -> Iterator[Answer]:
        """``ask_batch``, each answer as soon as it and those to the questions before it are whole.

        ``questions`` is read as slots become free, so it may be long and lazy. Raises as ``ask`` does, and what
        ``questions`` raises of that kind: at the first question that cannot be asked, after the answers to all before.
        """
        if slots < 1:
            raise InputError(f"slots is {slots}; expected 1 or more")
        requests: deque[Request] = deque()
        refused: list[ParrotError] = []

        def compose() -> Iterator[Request]:
            try:
                for images, question in questions:
                    stats = Stats()
                    pictures = self._read(images, stats)
                    turns = [Turn("user", check_question(question), len(pictures))]
                    choose = Sampler(sampling)
                    requests.append(self._composer.request(pictures, turns, choose, max_new_tokens, stats, Routed()))
                    yield requests[-1]
            except ParrotError as error:
                refused.append(error)

        for _ in self._generate(compose(), slots):
            while requests and requests[0].finish:
                yield self._whole(requests.popleft())
        yield from map(self._whole, requests)
        if refused:
            raise refused[0]

    def _whole(self, request: Request) -> Answer:
        if request.error is not None:
            raise request.error
        return self._stream(request, (token for token in request.tokens)).answer

    def _read(self, images: Images, stats: Stats) -> list[Picture]:
        stats.seconds["load"] = self.load_seconds
        sources = [] if images is None else images if isinstance(images, list | tuple) else [images]
        with stats.timed("image"):
            return [self.picture(source) for source in sources]

    def _stream(self, request: Request, tokens: Tokens, on_end: Callable[[Answer], None] | None = None) -> AnswerStream:
        return AnswerStream(request, tokens, Detokenizer(self._tokenizer), on_end)

    def _alone(self, request: Request) -> Tokens:
        """The tokens of one request in slots of its own."""
        return (token for _, token in self._generate([request], 1))

    def _generate(self, requests: Iterable[Request], slots: int) -> Iterator[tuple[Request, int]]:
        with self._borrowed_slots(slots) as borrowed:
            yield from generate(requests, borrowed)

    def _new_slots(self, count: int) -> Slots:
        cache = self._backend.new_cache(count, self.max_len)
        return Slots(self._backend, self._embedding, cache, self._prompts.stop_ids)

    @contextmanager
    def _borrowed_slots(self, count: int) -> Iterator[Slots]:
        """Slots nobody else uses; a single one, and the last of another count, are kept with what they hold."""
        slots = self._idle_slots.pop(count, None) or self._new_slots(count)
        try:
            yield slots
        finally:
            # Each count more would be as much memory again.
            for other in set(self._idle_slots) - {1, count}:
                self._idle_slots.pop(other, None)
            self._idle_slots[count] = slots
