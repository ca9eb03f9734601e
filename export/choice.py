"""What a request for an export comes to: which graphs the bundle gets, and who builds engines from them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from parrot_export.engines.targets import Target, choose_target
from parrot_export.plan import PRESETS, Plan, plan, require_compute_capabilities, with_bits
from parrot_runtime.errors import InputError
from parrot_runtime.flavours import installed


@dataclass(frozen=True)
class Choice:
    """The plans of onnxruntime's graphs and of TensorRT's, of which one may be None; and the builder of engines.

    Without a ``builder`` there are no engines; ``note`` then says why, where somebody might have expected some.
    """

    cpu: Plan | None
    tensorrt: Plan | None = None
    builder: Target | None = None
    note: str | None = None

    @property
    def first(self) -> Plan:
        """The plan the bundle goes by."""
        chosen = self.cpu or self.tensorrt
        if chosen is None:
            raise ValueError("a choice has a plan for the cpu, for TensorRT or for both")
        return chosen

    @property
    def types(self) -> set[str]:
        """The types in which weights may stand in the bundle as they are, by numpy's names."""
        plans = [plan for plan in (self.cpu, self.tensorrt) if plan]
        return {component.stored for plan in plans for component in plan.components.values()}

    @property
    def suffix(self) -> str:
        """How the bundle's name ends: its precision, and the target where that is a TensorRT alone."""
        return self.first.precision if self.cpu else f"{self.first.precision}-{self.first.target}"

    def with_bits(self, embedding: int | None, head: int | None, *, tied: bool) -> "Choice":
        """With word embeddings and output layer of so many bits; see ``parrot_export.plan.with_bits``."""
        cpu, tensorrt = (each and with_bits(each, embedding, head, tied=tied) for each in (self.cpu, self.tensorrt))
        return replace(self, cpu=cpu, tensorrt=tensorrt)


def _require_cpu(target: str | None, options: Mapping[str, object]) -> None:
    """Raise InputError for a search for anything but the cpu; ``options`` are TensorRT's own, by their names."""
    given = [option for option, value in options.items() if value is not None]
    if target not in (None, "cpu") or given:
        what = given[0] if given else f"--target {target}"
        raise InputError(
            f"--auto looks for a plan by the kernels of the cpu, and {what} is of TensorRT, whose own can be measured "
            "on its GPU alone; leave it out, or take --int8, --int4 or --fp8"
        )


def choose(
    precision: str,
    target: str | None,
    dialect: str | None = None,
    sms: Sequence[int] | None = None,
    max_batch: int | None = None,
) -> Choice:
    """Without a ``target``: for the cpu, and for TensorRT where one is installed or an option of its own is given.

    ``sms`` and ``max_batch`` are of engines, which must then be built. Raises InputError for options that contradict
    each other, a precision the target does not have, and engines that cannot be built here but were asked for.
    """
    own = {"--dialect": dialect, "--sm": sms, "--max-batch": max_batch}
    if precision == "mixed":
        _require_cpu(target, own)
        return Choice(plan("mixed", "cpu"))
    given = [option for option, value in own.items() if value is not None]
    if target == "cpu" and given:
        raise InputError(f"{given[0]} is of TensorRT, which --target cpu leaves out; drop one of the two")
    if target in (None, "cpu") and precision not in PRESETS["ort"] and precision in PRESETS["tensorrt-modern"]:
        raise InputError(
            f"--{precision} is of TensorRT alone; add --target tensorrt or --target tensorrt-rtx, or take --fp16"
        )
    cpu = plan(precision, "cpu") if target in (None, "cpu") else None
    if target == "cpu" or (target is None and not given and not installed()):
        return Choice(cpu)
    chosen = plan(precision, target or "tensorrt", dialect)
    require_compute_capabilities(chosen, sms or ())
    try:
        builder = choose_target(sms, target)
    except InputError as error:
        if sms is not None or max_batch is not None:
            raise
        return Choice(cpu, chosen, note=f"no engines are built here: {error}")
    if builder.gpu:
        require_compute_capabilities(chosen, builder.sms)
    return Choice(cpu, chosen, builder)
