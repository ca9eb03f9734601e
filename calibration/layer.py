"""One segment of a graph, from two passes of all samples to thresholds, factors and codes."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from parrot_calibration.methods.errors import OUTPUTS, ErrorSum, worst
from parrot_calibration.methods.factors import Found, awq_factors, smooth_factors
from parrot_calibration.methods.gptq import gptq, inverse_factor
from parrot_calibration.methods.rounding import FourBits
from parrot_calibration.methods.thresholds import clipped, thresholds
from parrot_calibration.statistics import FirstPass, SecondPass
from parrot_export.architecture import side_by_side
from parrot_export.checkpoint import Checkpoint
from parrot_export.folding import fold_sites, folded
from parrot_export.quantise import int4_block, two_to_a_byte
from parrot_export.scales import Product, Rounded, Search, Settings
from parrot_export.slabs import StoredTensor

# Graphs that a plan stores in 4 bits; a picture's encoder, run once, is never among them.
_FOUR_BIT_ROLES = ("experts", "decoder")

# One pass of a segment: language, sample's name, rows that stand for it, and the exposed values by name.
Pass = Callable[[], Iterator[tuple[int, str, np.ndarray, dict[str, np.ndarray]]]]


@dataclass
class Part:
    """What a segment yields: entries of the record, and arrays by their names in the safetensors file."""

    products: dict[str, Product] = field(default_factory=dict)
    matrices: dict[str, Rounded] = field(default_factory=dict)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    searches: dict[str, dict[str, Search]] = field(default_factory=dict)


class LayerCalibrator:
    """Calibrates the segments of ``checkpoint`` by ``settings``; ``languages`` in the order of every array."""

    def __init__(self, checkpoint: Checkpoint, settings: Settings, languages: Sequence[str]) -> None:
        self._checkpoint, self._settings, self.languages = checkpoint, settings, tuple(languages)
        self._sites = fold_sites(checkpoint.architecture)

    def calibrate(self, role: str, exposed: dict[str, tuple[str, ...]], totals: np.ndarray, run: Pass) -> Part:
        """``exposed`` are the segment's values and the modules that read each; ``totals`` the rows of each language.

        ``run`` is called twice. Raises InputError for NaN and infinity.
        """
        part, firsts = Part(), self._first_pass(role, exposed, totals, run)
        found = {value: self._search(role, modules, firsts[value], part) for value, modules in exposed.items()}
        seconds = {value: SecondPass(firsts[value], found[value].get("int8")) for value in exposed}
        for language, _, _, values in run():
            for value, array in values.items():
                seconds[value].add(array, language)
        for value, modules in exposed.items():
            self._describe(role, modules, firsts[value], seconds[value], part)
        self._round(role, exposed, firsts, found, part)
        return part

    def _first_pass(self, role: str, exposed: dict, totals: np.ndarray, run: Pass) -> dict[str, FirstPass]:
        firsts: dict[str, FirstPass] = {}
        grams = "gptq" in self._settings.int4 and role in _FOUR_BIT_ROLES
        for language, name, chosen, values in run():
            for value, array in values.items():
                if value not in firsts:
                    channels = array.shape[-1]
                    wanted = grams and self._block(channels) is not None
                    firsts[value] = FirstPass(exposed[value][0], self.languages, channels, self._settings.seed, wanted)
                firsts[value].add(array, language, chosen, 1 / totals[language], name)
        return firsts

    def _block(self, columns: int) -> int | None:
        return int4_block(columns, self._settings.block)

    def _search(self, role: str, modules: tuple[str, ...], first: FirstPass, part: Part) -> dict[str, np.ndarray]:
        """Factors of the site that ``modules`` read, spread over its channels, by fit; recorded in ``part``."""
        site = self._sites.get(modules[0])
        if site is None:
            return {}
        # A stack that an expert's absorber divides row by row is read as one matrix of all experts.
        matrix, kept, name = self._matrix(self._checkpoint, site.weights), first.kept, modules[0]
        found = {"int8": smooth_factors(site, kept, first.peak, matrix)}
        block = self._block(first.channels) if role in _FOUR_BIT_ROLES else None
        if block and "awq" in self._settings.int4:
            found["int4"] = awq_factors(site, kept, first.mean, matrix, FourBits(block, self._settings.asymmetric))
        part.arrays |= {f"{name}.{fit}.factors": one.factors for fit, one in found.items() if one.factors is not None}
        part.searches[name] = {fit: self._note(one) for fit, one in found.items()}
        return {fit: site.spread_out(one.factors) for fit, one in found.items() if one.factors is not None}

    def _note(self, found: Found) -> Search:
        return Search(found.alpha, self._by_language(found.plain), self._by_language(found.chosen))

    def _by_language(self, numbers: np.ndarray) -> dict[str, float]:
        """Numbers by language, of those that were seen."""
        pairs = zip(self.languages, numbers, strict=True)
        return {code: float(f"{number:.6g}") for code, number in pairs if np.isfinite(number)}

    def _describe(self, role: str, modules: tuple[str, ...], first: FirstPass, second: SecondPass, part: Part) -> None:
        limits = thresholds(second.counts, second.largest)
        beyond = clipped(second.counts, second.largest, limits[self._settings.ranges])
        rows = {code: int(count) for code, count in zip(self.languages, first.rows, strict=True)}
        searches = part.searches.get(modules[0], {})
        part.products[modules[0]] = Product(
            role, modules, first.channels, rows, second.largest, limits, self._by_language(beyond), searches
        )
        part.arrays[f"{modules[0]}.histogram"] = second.counts

    def _round(self, role: str, exposed: dict, firsts: dict, found: dict, part: Part) -> None:
        """Codes of four bits for every matrix that reads one of the segment's values."""
        if role not in _FOUR_BIT_ROLES:
            return
        factors = {name: part.arrays[key] for name in part.products if (key := f"{name}.int4.factors") in part.arrays}
        view = folded(self._checkpoint, factors)
        for value, modules in exposed.items():
            first, block = firsts[value], self._block(firsts[value].channels)
            if block is None:
                continue
            spread = found[value].get("int4")
            gram = first.moments(spread)
            factor = None if gram is None else inverse_factor(gram)
            # A product of several modules side by side goes by its first; its site knows them all.
            site = self._sites.get(modules[0])
            packed = site.weights if site else ()
            for name in dict.fromkeys((*(f"{module}.weight" for module in modules), *packed)):
                self._round_matrix(name, first, spread, factor, block, view, part)

    def _round_matrix(
        self,
        name: str,
        first: FirstPass,
        spread: np.ndarray | None,
        factor: np.ndarray | None,
        block: int,
        view: Checkpoint,
        part: Part,
    ) -> None:
        """Codes of one matrix: to nearest, or by GPTQ where ``factor`` is given and the worst language gains."""
        bits, kept = FourBits(block, self._settings.asymmetric), first.kept
        # As the folded model has them: there both the rows and the matrix are scaled, and their product is not.
        scaled = kept if spread is None else replace(kept, rows=kept.rows / spread)
        errors = {"plain": ErrorSum(kept), "rtn": ErrorSum(scaled), "gptq": ErrorSum(scaled)}
        pieces: dict[str, list] = {"rtn": [], "gptq": []}
        pairs = zip(_row_pieces(self._checkpoint.tensors[name]), _row_pieces(view.tensors[name]), strict=True)
        for plain, matrix in pairs:
            errors["plain"].add(plain, kept.rows, bits.round_trip(plain))
            for method in ("rtn", "gptq") if factor is not None else ("rtn",):
                found = bits.quantise(matrix) if method == "rtn" else gptq(matrix, factor, bits)
                errors[method].add(matrix, scaled.rows, bits.dequantise(*found))
                pieces[method].append((two_to_a_byte(found[0]), found[1].astype(np.float16), found[2].astype(np.uint8)))
        best = "gptq" if pieces["gptq"] and worst(errors["gptq"].errors) < worst(errors["rtn"].errors) else "rtn"
        codes, scales, zeros = (np.concatenate(column) for column in zip(*pieces[best], strict=True))
        key = matrix_name(view.tensors[name])
        part.arrays |= {f"{key}.uint4": codes, f"{key}.uint4.scales": scales}
        part.arrays |= {f"{key}.uint4.zeros": zeros} if self._settings.asymmetric else {}
        part.matrices[key] = Rounded(
            (len(codes), codes.shape[1] * 2),
            block,
            best,
            self._by_language(errors["plain"].errors),
            self._by_language(errors[best].errors),
        )

    def _matrix(self, checkpoint: Checkpoint, names: Sequence[str]) -> np.ndarray:
        """The matrices ``names``, one below the other: float32 ``[N, K]``."""
        return np.concatenate([piece for name in names for piece in _row_pieces(checkpoint.tensors[name])])


def matrix_name(tensor: StoredTensor) -> str:
    """What a matrix's codes are called: its tensor, with ``.columns`` where experts stand side by side."""
    return f"{tensor.name}.columns" if side_by_side(tensor.name.removesuffix(".weight")) else tensor.name


def _row_pieces(tensor: StoredTensor) -> Iterator[np.ndarray]:
    """A matrix as products read it, ``[rows, K]`` in float32, at most ``OUTPUTS`` at a time."""
    if side_by_side(tensor.name.removesuffix(".weight")):
        width = tensor.shape[0] * tensor.shape[2]
        chunks = (chunk.reshape(-1, width) for chunk in tensor.column_chunks())
    else:
        chunks = tensor.row_chunks()
    for chunk in chunks:
        for first in range(0, len(chunk), OUTPUTS):
            yield chunk[first : first + OUTPUTS].astype(np.float32)
