"""The command line. Only this file talks to a person; what it calls returns values and raises sentences."""

import argparse
import contextlib
import os
import re
import signal
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any

from app.talk import mention, say

# Nothing here may import torch, not even indirectly: `preimage --help` answers at once. Commands import what they use.
if TYPE_CHECKING:
    from restoration.result import Result

ABORTED = 130
"""Exit status after Ctrl-C: 128 + SIGINT, as shells have it."""


def main(argv: list[str] | None = None) -> int:
    """Run a command; 0 when it is done, 2 for what its user can mend, 130 after Ctrl-C."""
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["train"]:  # has options of its own, which argparse would not hand over untouched
        return _guarded(lambda: _train(argv[1:]))
    options = _parser().parse_args(argv)
    if options.command is None:
        _print(_parser().format_help().rstrip())
        return 0
    command: Callable[[argparse.Namespace], int] = options.command
    return _guarded(lambda: command(options))


def _guarded(command: Callable[[], int]) -> int:
    try:
        return command()
    except KeyboardInterrupt:
        _complain("aborted; no new result was written.")
        return ABORTED
    except Exception as error:
        from operators.errors import PreimageError

        if not isinstance(error, PreimageError):
            raise
        _complain(" ".join(str(error).split()))
        return 2


def _print(text: str) -> None:
    say(sys.stdout, f"{text}\n")


def _complain(sentence: str) -> None:
    mention(sys.stderr, f"preimage: {sentence}\n")


# Arguments


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="preimage",
        description="Given y = A(x) + noise, draw images x that could have made y. Research use only.",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    parser.set_defaults(command=None)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")

    run = commands.add_parser(
        "run",
        help="restore a picture",
        description="Restore a picture and write samples, their mean and spread, figures and the recipe to a folder.",
    )
    run.add_argument("recipe", metavar="RECIPE", help="recipe file (JSON) or name of a preset (see `preimage recipes`)")
    run.add_argument(
        "input", metavar="INPUT", type=Path, help="picture of the measurement: PNG, JPEG, TIFF, BMP or WebP"
    )
    run.add_argument(
        "-o", "--out", metavar="OUT", type=Path, required=True, help="result folder, new or an earlier result"
    )
    run.add_argument(
        "--truth",
        action="store_true",
        help="INPUT is clean: degrade it first, with noise of seed 0 whatever --seed says, then score the result",
    )
    run.add_argument("--seed", metavar="N", type=int, nargs="+", default=[], help="one seed per sample")
    run.add_argument("--samples", metavar="K", type=int, help="K samples, of consecutive seeds from the first")
    run.add_argument("--device", type=_device, default="cpu", help="cpu (default), cuda or cuda:N")
    run.add_argument(
        "--precision",
        choices=["auto", "fp32", "bf16"],
        default="auto",
        help="of the network; auto (default) is bf16 where the hardware has it; fp32 repeats a run exactly",
    )
    run.set_defaults(command=_run)

    recipes = commands.add_parser("recipes", help="list the presets")
    recipes.set_defaults(command=_recipes)
    assets = commands.add_parser(
        "assets", help="list weights and pictures that ship with the package, and their licences"
    )
    assets.set_defaults(command=_assets)

    demo = commands.add_parser(
        "demo",
        help="restore three bundled pictures from four kinds of damage and make a page of it",
        description="Restore three bundled pictures from four kinds of damage; compare with classical methods.",
    )
    demo.add_argument(
        "-o", "--out", metavar="OUT", type=Path, default=Path("out/demo"), help="folder (default: out/demo)"
    )
    demo.add_argument("--samples", metavar="K", type=int, default=4, help="samples a picture (default: 4)")
    demo.add_argument("--size", metavar="N", type=int, help="use only the middle N x N pixels, for a quick look")
    demo.set_defaults(command=_demo)

    commands.add_parser("train", help="train a prior (see `preimage train --help`)", add_help=False)
    return parser


class _Version(argparse.Action):
    """Looks the version up only when it is asked for."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        from importlib.metadata import version

        _print(f"preimage {version('preimage')}")
        parser.exit()


def _device(name: str) -> str:
    if re.fullmatch(r"cpu|cuda(:\d{1,3})?", name) is None:
        raise argparse.ArgumentTypeError(f"expected cpu, cuda or cuda:N, got '{name}'")
    return name


# Commands


def _run(options: argparse.Namespace) -> int:
    from app.progress import meter
    from app.run import Order, run_order
    from app.settings import Settings

    order = Order(
        recipe=options.recipe,
        input=options.input,
        out=options.out,
        truth=options.truth,
        seeds=tuple(options.seed),
        samples=options.samples,
        device=options.device,
        precision=options.precision,
    )
    store = Settings.from_env().store()
    with _Stop() as stop, meter(sys.stderr) as shown:
        result = run_order(order, store, lambda progress: shown.count(progress.done, progress.total), stop.wanted)
    _print(f"{_summary(result)}\nfolder     {order.out}")
    if result.report.complete:
        return 0
    _complain(f"stopped early; the partial result is in {order.out}.")
    return ABORTED


def _recipes(options: argparse.Namespace) -> int:
    from restoration.recipe import preset_names, read_recipe

    names = preset_names()
    margin = max(map(len, names)) + 2
    for name in names:
        recipe, _ = read_recipe(name)
        _print(f"{name:<{margin}}{recipe.title}")
        _print(textwrap.indent(textwrap.fill(recipe.reference, 100 - margin), " " * margin))
    return 0


def _assets(options: argparse.Namespace) -> int:
    from app.settings import Settings

    for card in Settings.from_env().store().cards.values():
        _print(f"{card.name}: {card.title}")
        _print(f"  role     {card.role}, {card.bytes / 1e6:.1f} MB, sha256 {card.sha256[:12]}")
        _print(f"  licence  {card.licence}")
        _print(f"  source   {card.source}")
        for heading, facts in (("training", card.training), ("quality", card.quality)):
            for what, value in facts.items():
                _print(f"  {heading:<8} {what}: {value}")
    return 0


def _demo(options: argparse.Namespace) -> int:
    from app.demo import run_demo, table
    from app.progress import meter
    from app.settings import Settings

    store = Settings.from_env().store()
    with meter(sys.stderr) as shown:
        rows = run_demo(options.out, options.samples, size=options.size, store=store, watch=shown.count)
    _print(table(rows))
    _print(f"\nOpen {options.out / 'index.html'} in a browser.")
    return 0


def _train(argv: list[str]) -> int:
    from restoration.train.__main__ import main as train

    status = train(argv)
    say(sys.stdout, "")  # flushes what it printed
    return status


def _summary(result: "Result") -> str:
    report = result.report
    lines = [f"samples    {report.samples}, seed {', '.join(map(str, report.seeds[:8]))}"]
    if len(report.seeds) > 8:
        lines[0] += " ..."
    if report.psnr is not None and report.ssim is not None and report.psnr_samples is not None:
        each = ""
        if report.samples > 1:
            each = f" (mean of the samples), {min(report.psnr_samples):.2f} to {max(report.psnr_samples):.2f} dB (each)"
        lines.append(f"PSNR       {report.psnr:.2f} dB{each}")
        lines.append(f"SSIM       {report.ssim:.4f}{' (mean of the samples)' if each else ''}")
    lines.append(f"residual   {report.residual_sigma:.3f} sigma of the noise; near 1 is a good fit")
    lines.append(
        f"cost       {report.nfe:g} network calls a sample, {report.seconds:.1f} s "
        f"on {report.device} (threads {report.threads}, precision {report.precision})"
    )
    lines += [f"note       {note}" for note in report.notes]
    return "\n".join(lines)


# Ctrl-C


class _Stop:
    """The first Ctrl-C asks the run to stop after its step and keep what it has; the second aborts at once."""

    def __init__(self) -> None:
        self._asked = False
        self._before: Any = None

    def __enter__(self) -> "_Stop":
        self._before = signal.getsignal(signal.SIGINT)
        # Handlers belong to the main thread; and a job in the background, told to ignore Ctrl-C, goes on ignoring it.
        if threading.current_thread() is threading.main_thread() and self._before is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, self._on_signal)
        else:
            self._before = None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def wanted(self) -> bool:
        """Whether to stop."""
        return self._asked

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._asked:
            raise KeyboardInterrupt
        self._asked = True
        # print could be what was interrupted, and may not be entered twice
        with contextlib.suppress(OSError):
            os.write(2, b"\npreimage: stopping after this step; press Ctrl-C again to abort at once.\n")


if __name__ == "__main__":
    sys.exit(main())
