"""The nano world's grammars, by language code: its six languages, and those that a model can be extended by."""

from parrot_train.nano.grammar.ar import Arabic
from parrot_train.nano.grammar.base import Grammar
from parrot_train.nano.grammar.de import German
from parrot_train.nano.grammar.en import English
from parrot_train.nano.grammar.es import Spanish
from parrot_train.nano.grammar.pt import Portuguese
from parrot_train.nano.grammar.ru import Russian
from parrot_train.nano.grammar.tr import Turkish
from parrot_train.nano.grammar.zh import Chinese

GRAMMARS: dict[str, Grammar] = {
    grammar.code: grammar
    for grammar in (English(), Chinese(), Portuguese(), Arabic(), Turkish(), Russian(), Spanish(), German())
}
