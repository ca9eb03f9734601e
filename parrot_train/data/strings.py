"""Many strings end to end in memory-mapped files: of a million names none is in memory before it is asked for."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

# Lone surrogates, which JSON can hold, are kept too.
_SURROGATES = "surrogatepass"


class StoredStrings(Sequence[str]):
    """The strings that ``save_strings`` wrote: ``text`` ``uint8[bytes]`` is UTF-8, string i at ``ends[i]:ends[i + 1]``.

    Pickled, it is the names of its files, which a loading worker maps itself.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._origin = folder, name
        self._text = np.load(folder / f"{name}.npy", mmap_mode="r")
        self._ends = np.load(folder / f"{name}_ends.npy", mmap_mode="r")

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, place: int) -> str:
        if not -len(self) <= place < len(self):
            raise IndexError(f"string {place} of {len(self)}")
        start, end = (int(self._ends[each]) for each in (place % len(self), place % len(self) + 1))
        return self._text[start:end].tobytes().decode("utf-8", _SURROGATES)

    def __reduce__(self) -> tuple:
        return StoredStrings, self._origin


def save_strings(folder: Path, name: str, strings: Sequence[str]) -> None:
    """Write ``strings`` for StoredStrings."""
    encoded = [string.encode("utf-8", _SURROGATES) for string in strings]
    np.save(folder / f"{name}.npy", np.frombuffer(b"".join(encoded), np.uint8))
    np.save(folder / f"{name}_ends.npy", np.concatenate([[0], np.cumsum([len(each) for each in encoded])]).astype("i8"))


@dataclass(frozen=True)
class Paths(Sequence[Path]):
    """The paths of ``names`` below ``root``."""

    root: Path
    names: Sequence[str]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, place: int) -> Path:
        return self.root / self.names[place]
