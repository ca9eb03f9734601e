"""The nano world's six grammars, by language code."""

from parrot_train.nano.grammar.ar import Arabic
from parrot_train.nano.grammar.base import Grammar
from parrot_train.nano.grammar.en import English
from parrot_train.nano.grammar.pt import Portuguese
from parrot_train.nano.grammar.ru import Russian
from parrot_train.nano.grammar.tr import Turkish
from parrot_train.nano.grammar.zh import Chinese

GRAMMARS: dict[str, Grammar] = {
    grammar.code: grammar for grammar in (English(), Chinese(), Portuguese(), Arabic(), Turkish(), Russian())
}
