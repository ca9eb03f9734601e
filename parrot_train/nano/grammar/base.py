"""What every grammar of the nano world offers.

A grammar turns meanings (a group of things, a colour, a place) into questions and answers that a native speaker would
accept. Question methods are named after their category in `parrot_train.nano.questions`; value methods give the short
form that stands as an option or, with a capital and a full stop, as an answer.
"""

import abc
from collections.abc import Sequence

from parrot_train.nano.scenes import Group


class Grammar(abc.ABC):
    """One language. Subclasses give every method below; `tests/parrot_train/nano` holds their sentences to account."""

    code: str
    full_stop = "."
    background_word: str
    yes = "yes"
    no = "no"

    # --- values: short forms ----------------------------------------------------------------------------------------
    @abc.abstractmethod
    def phrase(self, group: Group, *, size: bool = False) -> str:
        """``two red apples``: count, colour and kind, and the size when asked for; indefinite."""

    @abc.abstractmethod
    def one(self, kind: str) -> str:
        """``an apple``."""

    @abc.abstractmethod
    def the(self, kind: str, count: int = 1) -> str:
        """``the apple``, ``the apples``; languages without articles give the bare noun."""

    def missing(self, kind: str) -> str:
        """The kind as an answer to `absent`: ``an apple``, but a genitive where the language wants one."""
        return self.one(kind)

    @abc.abstractmethod
    def colour_of(self, group: Group, colour: str) -> str:
        """The colour as a predicate of the group."""

    @abc.abstractmethod
    def size_of(self, group: Group, size: str) -> str: ...

    @abc.abstractmethod
    def number_of(self, kind: str | None, count: int) -> str:
        """``three``, agreeing with the kind it counts; None counts things in general."""

    @abc.abstractmethod
    def place(self, cell: int) -> str:
        """``in the top left``."""

    @abc.abstractmethod
    def scenery(self, background: str) -> str:
        """The background as an answer: ``a meadow``."""

    @abc.abstractmethod
    def join(self, parts: Sequence[str]) -> str: ...

    def yes_no(self, category: str) -> tuple[str, str]:
        """The words for yes and no that answer a question of this category."""
        del category
        return self.yes, self.no

    def sentence(self, text: str) -> str:
        """A capital first letter and a full stop."""
        return text[:1].upper() + text[1:] + self.full_stop

    def listing(self, groups: Sequence[Group], *, size: bool = False) -> str:
        return self.join([self.phrase(group, size=size) for group in groups])

    @abc.abstractmethod
    def caption(self, groups: Sequence[Group], background: str) -> str:
        """A whole sentence: every group with count, size and colour, and where it all is."""

    def located(self, group: Group, cell: int) -> str:
        """``a large red apple in the top left``: one thing of a detailed description."""
        single = Group(group.kind, group.colour, group.size, (cell,))
        return f"{self.phrase(single, size=True)} {self.place(cell)}"

    def report(self, groups: Sequence[Group], background: str) -> str:
        """Every thing with its place, group by group, and then the background by name."""
        places = [self.located(group, cell) for group in groups for cell in group.cells]
        return f"{self.sentence(self.join(places))} {self.background_word}: {self.scenery(background)}{self.full_stop}"

    # --- questions --------------------------------------------------------------------------------------------------
    @abc.abstractmethod
    def object(self) -> Sequence[str]: ...

    @abc.abstractmethod
    def describe(self) -> Sequence[str]: ...

    @abc.abstractmethod
    def describe_places(self) -> str: ...

    @abc.abstractmethod
    def which_present(self) -> str: ...

    @abc.abstractmethod
    def absent(self) -> str: ...

    @abc.abstractmethod
    def colour(self, group: Group) -> str: ...

    @abc.abstractmethod
    def count(self, kind: str) -> str: ...

    @abc.abstractmethod
    def total(self) -> str: ...

    @abc.abstractmethod
    def position(self, kind: str) -> str: ...

    @abc.abstractmethod
    def at_position(self, cell: int) -> str: ...

    @abc.abstractmethod
    def with_colour(self, colour: str) -> str: ...

    @abc.abstractmethod
    def size(self, group: Group) -> str: ...

    @abc.abstractmethod
    def comparison(self, first: str, second: str, *, larger: bool) -> str: ...

    @abc.abstractmethod
    def existence(self, kind: str) -> str: ...

    @abc.abstractmethod
    def class_existence(self, name: str) -> str: ...

    @abc.abstractmethod
    def background(self) -> str: ...

    @abc.abstractmethod
    def class_member(self, name: str) -> str: ...

    @abc.abstractmethod
    def beside(self, direction: str, kind: str) -> str:
        """What is to the ``left``/``right`` of the kind, ``above`` or ``below`` it?"""

    @abc.abstractmethod
    def is_beside(self, first: str, direction: str, second: str) -> str: ...

    @abc.abstractmethod
    def is_colour(self, group: Group, colour: str) -> str: ...

    @abc.abstractmethod
    def same_colour(self, first: str, second: str) -> str: ...

    @abc.abstractmethod
    def more(self, first: str, second: str) -> str: ...
