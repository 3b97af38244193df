"""The command line. Only this file talks to a person; what it calls returns values and raises sentences."""

import argparse
import contextlib
import os
import re
import signal
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any

from app.talk import mention, say

# Nothing here may import torch, not even indirectly: `preimage --help` answers at once. Commands import what they use.
if TYPE_CHECKING:
    from app.batch import Progress
    from app.inputs import Plan
    from app.progress import Meter
    from app.server import Setup
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
    run.add_argument("recipe", metavar="RECIPE", help="recipe file (JSON) or name (see `preimage recipes`)")
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

    _add_batch(commands)
    _add_study(commands)
    recipes = commands.add_parser("recipes", help="list the presets, or published settings")
    recipes.add_argument("--published", action="store_true", help="settings of papers, with the network calls a sample")
    recipes.set_defaults(command=_recipes)
    assets = commands.add_parser(
        "assets", help="list weights and pictures that ship with the package, and their licences"
    )
    assets.set_defaults(command=_assets)

    demo = commands.add_parser(
        "demo",
        help="restore three bundled pictures from several kinds of damage and make a page of it",
        description="Restore three bundled pictures from several kinds of damage; compare with classical methods.",
    )
    demo.add_argument(
        "-o", "--out", metavar="OUT", type=Path, default=Path("out/demo"), help="folder (default: out/demo)"
    )
    demo.add_argument("--samples", metavar="K", type=int, default=4, help="samples a picture (default: 4)")
    demo.add_argument("--size", metavar="N", type=int, default=160, help="use the middle N x N pixels (default: 160)")
    demo.add_argument("--whole", action="store_true", help="use whole pictures, three times the pixels")
    demo.set_defaults(command=_demo)

    _add_serve(commands)
    commands.add_parser("train", help="train a prior (see `preimage train --help`)", add_help=False)
    return parser


def _add_batch(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    batch = commands.add_parser(
        "batch",
        help="restore many pictures and volumes, whatever dies meanwhile",
        description="Restore pictures, DICOM series and NIfTI files, each on its own: a bad one fails with a sentence. "
        "Exit status: 0 all done, 1 some failed, 2 nothing could start, 3 the disk gave up, 130 stopped; "
        "after 3, 130 and any crash --resume goes on.",
    )
    batch.add_argument(
        "-i", "--input", metavar="PATH", type=Path, nargs="+", required=True, help="files, folders, zips"
    )
    batch.add_argument("-o", "--out", metavar="DIR", type=Path, required=True, help="folder of the run")
    batch.add_argument("--recipe", required=True, help="recipe file (JSON) or name of a preset")
    batch.add_argument(
        "--output-type",
        metavar="TYPES",
        type=_output_types,
        default=(),
        help="png, tiff, npz, nifti, dicom, with commas between them (default: what suits each input)",
    )
    batch.add_argument("--series", metavar="RULE", default="", help="DICOM series, such as modality=CT,slices>=20")
    batch.add_argument("--on-gap", choices=["refuse", "slicewise"], default="refuse", help="series with missing slices")
    batch.add_argument("--window", metavar=("LOW", "HIGH"), type=float, nargs=2, help="numbers that become 0 and 1")
    batch.add_argument("--truth", action="store_true", help="inputs are clean: degrade them first, then score")
    batch.add_argument("--seed", metavar="N", type=int, nargs="+", default=[], help="one seed per sample")
    batch.add_argument("--samples", metavar="K", type=int, help="K samples, of consecutive seeds from the first")
    batch.add_argument("--device", type=_device, default="cpu", help="cpu (default), cuda or cuda:N")
    batch.add_argument("--precision", choices=["auto", "fp32", "bf16"], default="auto", help="of the network")
    batch.add_argument(
        "--batch", metavar="N", type=int, default=0, help="images in a network call (default: 1 on a CPU)"
    )
    batch.add_argument("--workers", metavar="N", type=int, default=0, help="processes (Dask); 0 works in this one")
    batch.add_argument("--scheduler", metavar="WHERE", default="", help="a Dask cluster: tcp://host:port or slurm.yaml")
    again = batch.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="go on with the run in DIR, if there is one")
    again.add_argument("--overwrite", action="store_true", help="delete the earlier run in DIR first")
    batch.add_argument("--dry-run", action="store_true", help="list what would be done")
    batch.add_argument("--fail-fast", action="store_true", help="end after the first case that fails")
    batch.add_argument("--report", metavar="FILE", type=Path, help="a copy of the manifest (JSON)")
    batch.set_defaults(command=_batch)


def _add_study(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    study = commands.add_parser("study", help="compare recipes over many inputs, with intervals, as tables and a page")
    kinds = study.add_subparsers(title="commands", metavar="COMMAND", required=True)
    run = kinds.add_parser(
        "run",
        help="work on a study and write its report",
        description="Expand a study, check all of it, run every recipe as a batch and write tables and report.html. "
        "Exit status as of `preimage batch`; after a crash --resume goes on.",
    )
    run.add_argument("study", metavar="STUDY", help="study file (JSON) or name of one that ships (see docs/studies.md)")
    run.add_argument(
        "-i", "--input", metavar="PATH", type=Path, nargs="+", default=[], help="inputs in place of the study's own"
    )
    run.add_argument("-o", "--out", metavar="DIR", type=Path, required=True, help="folder of the study")
    run.add_argument("--resume", action="store_true", help="go on with the study in DIR, if there is one")
    run.add_argument("--workers", metavar="N", type=int, default=0, help="processes (Dask); 0 works in this one")
    run.add_argument("--scheduler", metavar="WHERE", default="", help="a Dask cluster: tcp://host:port or slurm.yaml")
    run.add_argument("--dry-run", action="store_true", help="check the study and list what would be done")
    run.set_defaults(command=_study_run)
    report = kinds.add_parser("report", help="write tables and report.html again from what is done of a study")
    report.add_argument("folder", metavar="DIR", type=Path, help="folder of the study")
    report.add_argument("--parquet", action="store_true", help="also table.parquet (needs pyarrow)")
    report.set_defaults(command=_study_report)

    again = commands.add_parser(
        "reproduce",
        help="do a result again and compare",
        description="Do the result in DIR again, elsewhere, and compare it with what is there. "
        "Exit status: 0 equal, 1 different, 2 it cannot be done again.",
    )
    again.add_argument("folder", metavar="DIR", type=Path, help="folder of `preimage run` or `preimage batch`")
    again.add_argument(
        "--input", metavar="PATH", type=Path, nargs="+", default=[], help="where the inputs are now, if they were moved"
    )
    again.set_defaults(command=_reproduce)


def _add_serve(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    gui = commands.add_parser(
        "gui",
        help="restore pictures and volumes in a browser",
        description="Serve the page and the HTTP API until Ctrl-C, and open the page. Only this machine can reach the "
        "server, unless there is a token: a file (--auth-file) or PREIMAGE_TOKEN. See docs/front-end.md.",
    )
    gui.add_argument("--no-browser", action="store_true", help="do not open a browser")
    gui.set_defaults(command=_gui)
    serve = commands.add_parser(
        "serve",
        help="take jobs over HTTP",
        description="Take jobs over HTTP, one after the other, until Ctrl-C. Only this machine can reach the server, "
        "unless there is a token: a file (--auth-file) or PREIMAGE_TOKEN. See docs/api.md.",
    )
    serve.set_defaults(command=_serve)
    for server in (gui, serve):
        _add_server(server)


def _add_server(serve: argparse.ArgumentParser) -> None:
    serve.add_argument("--host", metavar="ADDRESS", default="127.0.0.1", help="to listen on (default: 127.0.0.1)")
    serve.add_argument("--port", metavar="N", type=int, default=8765, help="0 takes a free one (default: 8765)")
    serve.add_argument(
        "--store", metavar="DIR", type=Path, default=Path("out/jobs"), help="folder of the jobs (default: out/jobs)"
    )
    serve.add_argument("--auth-file", metavar="FILE", type=Path, help="file with the token that clients must send")
    serve.add_argument(
        "--allow-host", metavar="NAME", nargs="+", default=[], help="further names that clients call the server by"
    )
    serve.add_argument("--workers", metavar="N", type=int, default=0, help="processes that share a job (Dask)")
    serve.add_argument("--max-upload", metavar="MIB", type=int, default=2048, help="of a job (default: 2048)")
    serve.add_argument("--max-files", metavar="N", type=int, default=2000, help="of a job (default: 2000)")
    serve.add_argument("--keep-days", metavar="N", type=float, default=0, help="delete jobs that ended so long ago")


def _output_types(text: str) -> tuple[str, ...]:
    kinds = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    if "seg" in kinds:
        raise argparse.ArgumentTypeError("expected no seg: there is no segmentation model yet")
    if wrong := [kind for kind in kinds if kind not in ("png", "tiff", "npz", "nifti", "dicom")]:
        raise argparse.ArgumentTypeError(f"expected png, tiff, npz, nifti or dicom, got '{wrong[0]}'")
    return kinds


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


def _batch(options: argparse.Namespace) -> int:
    from pydantic import ValidationError

    from app.batch import BROKEN_OFF, Options, Workers, preview_plan, run_batch
    from app.jobs import DiskRefuses, put
    from app.progress import meter
    from app.run import chosen_seeds
    from app.settings import Settings
    from operators.errors import RecipeError
    from restoration.pipeline import with_seeds
    from restoration.recipe import read_recipe

    recipe, base = read_recipe(options.recipe)
    recipe = with_seeds(recipe, chosen_seeds(recipe.seeds, tuple(options.seed), options.samples))
    try:
        chosen = Options(
            output_types=options.output_type,
            truth=options.truth,
            series=options.series,
            window=None if options.window is None else tuple(options.window),
            on_gap=options.on_gap,
            device=options.device,
            precision=options.precision,
            batch=options.batch,
        )
    except ValidationError as error:
        fault = error.errors()[0]
        raise RecipeError(f"Expected other options, got {fault['loc'][0]}: {fault['msg']}; change it.") from error
    if options.dry_run:
        _list_cases(preview_plan(options.input, chosen))
        return 0
    with _Stop() as stop, meter(sys.stderr) as shown:
        try:
            outcome = run_batch(
                recipe,
                options.input,
                options.out,
                chosen,
                base=base,
                resume=options.resume,
                overwrite=options.overwrite,
                fail_fast=options.fail_fast,
                workers=Workers(options.workers, options.scheduler),
                store=Settings.from_env().store(),
                watch=_Table(shown),
                stop=stop.wanted,
            )
            if options.report is not None and outcome.code != BROKEN_OFF:
                put(options.report, (outcome.job.folder / "manifest.json").read_bytes(), mode=0o666)
        except DiskRefuses as error:
            _complain(str(error))
            return BROKEN_OFF
    done = sum(case.state == "done" for case in outcome.cases)
    proven = sum(case.proven for case in outcome.cases)
    _print(f"{done} done ({proven} of them before), {sum(case.state == 'failed' for case in outcome.cases)} failed")
    _print(
        "".join(f"left out: {count} x {reason}\n" for reason, count in outcome.left_out.items()) + "Research use only."
    )
    if outcome.message:
        _complain(outcome.message)
    return outcome.code


def _study_run(options: argparse.Namespace) -> int:
    from app.batch import BROKEN_OFF, DONE, SOME_FAILED, Workers
    from app.jobs import DiskRefuses
    from app.progress import meter
    from app.settings import Settings
    from app.study import run_study
    from app.study_page import report
    from app.study_plan import expand, read_study
    from app.study_table import markdown

    store = Settings.from_env().store()
    plan = expand(*read_study(options.study), store, options.input)
    if options.dry_run:
        for cell in plan.cells:
            _print(f"{cell.number:>4} {cell.recipe.digest}  {cell.name}")
        _print(f"{len(plan.cells)} recipes on {len(plan.cases)} cases; nothing was run.")
        return 0
    with _Stop() as stop, meter(sys.stderr) as shown:
        try:
            code, message = run_study(
                plan,
                options.out,
                resume=options.resume,
                workers=Workers(options.workers, options.scheduler),
                store=store,
                watch=lambda p: shown.count(round(1000 * p.share), 1000, f"{p.cell.number}/{p.cells} {p.cell.name}"),
                stop=stop.wanted,
            )
            if code in (DONE, SOME_FAILED):
                plan, found = report(options.out)
                _print(f"{markdown(plan, found)}\n{options.out / 'report.html'}")
        except DiskRefuses as error:
            _complain(str(error))
            return BROKEN_OFF
    if message:
        _complain(message)
    return code


def _study_report(options: argparse.Namespace) -> int:
    from app.study import done_runs
    from app.study_page import report
    from app.study_table import markdown, write_parquet

    plan, found = report(options.folder)
    if options.parquet:
        write_parquet(plan, done_runs(plan, options.folder), options.folder / "table.parquet")
    _print(f"{markdown(plan, found)}\n{options.folder / 'report.html'}")
    return 0


def _reproduce(options: argparse.Namespace) -> int:
    from app.progress import meter
    from app.reproduce import reproduce
    from app.settings import Settings

    with _Stop() as stop, meter(sys.stderr) as shown:
        found = reproduce(options.folder, options.input, Settings.from_env().store(), shown.count, stop.wanted)
    _print("\n".join(found.sentences))
    return 0 if found.equal else 1


class _Table:
    """A line for every case that ends, above a bar with rate and time left."""

    def __init__(self, shown: "Meter") -> None:
        self._shown, self._began, self._new = shown, time.monotonic(), 0

    def __call__(self, progress: "Progress") -> None:
        case = progress.outcome
        if case is not None and not case.proven:
            self._new += 1
            self._shown.close()
            _print(
                f"{case.number:>6} {case.case} {case.kind:<10} {case.state:<7} {case.seconds:8.2f} s  {case.message}"
            )
        rate = 60 * self._new / max(time.monotonic() - self._began, 1e-9)
        part = 100 * progress.step // progress.steps if progress.steps else 0
        what = f"{progress.ended} of {progress.total} cases, {rate:.3g} a minute"
        self._shown.count(min(100 * progress.ended + part, 100 * progress.total), 100 * progress.total, what)


def _list_cases(plan: "Plan") -> None:
    for case in plan.cases:
        what = case.problem or case.about or f"{len(case.files)} file{'s'[: len(case.files) != 1]}"
        _print(f"{case.number:>6} {case.kind:<10} {case.folder}  {what}")
    for reason, count in plan.left_out.items():
        _print(f"left out: {count} x {reason}")


def _serve(options: argparse.Namespace) -> int:
    from app.server import serve
    from app.settings import Settings

    store = Settings.from_env().store()
    serve(_setup(options), store, lambda address: _print(f"serving on {address}, jobs in {options.store}"))
    return 0


def _gui(options: argparse.Namespace) -> int:
    import dataclasses
    import webbrowser

    from app.server import serve
    from app.settings import Settings

    if folder := os.environ.get("PREIMAGE_ASSETS"):  # the worker will not be where we are
        os.environ["PREIMAGE_ASSETS"] = str(Path(folder).absolute())
    store = Settings.from_env().store()
    seen = sys.platform in ("darwin", "win32") or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))

    def ready(address: str) -> None:
        _print(f"the page is at {address}, jobs are in {options.store}; Ctrl-C ends it")
        if seen and not options.no_browser:
            threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()

    serve(dataclasses.replace(_setup(options), page=True, prior="photo"), store, ready)
    return 0


def _setup(options: argparse.Namespace) -> "Setup":
    from app.guard import read_token
    from app.server import Setup
    from app.settings import Settings
    from app.uploads import Limits
    from operators.errors import RecipeError

    if min(options.max_upload, options.max_files) < 1 or min(options.workers, options.keep_days) < 0:
        raise RecipeError("Expected limits above 0 and no negative --workers or --keep-days, got others; change them.")
    settings = Settings.from_env()
    return Setup(
        folder=options.store,
        host=options.host,
        port=options.port,
        token=read_token(options.auth_file, settings.token),
        hosts=tuple(options.allow_host),
        workers=options.workers,
        keep_days=options.keep_days,
        limits=Limits(bytes=options.max_upload << 20, files=options.max_files),
    )


def _recipes(options: argparse.Namespace) -> int:
    from restoration.calls import calls_of
    from restoration.published import published_settings
    from restoration.recipe import preset_names, read_recipe

    names = list(published_settings()) if options.published else preset_names()
    margin = max(map(len, names)) + 2
    for name in names:
        recipe, _ = read_recipe(name)
        calls = calls_of(recipe)
        cost = f"{calls.denoiser} calls" + (f", {calls.vjps} pullbacks" if calls.vjps else "")
        _print(f"{name:<{margin}}{recipe.title}; {cost}")
        _print(textwrap.indent(textwrap.fill(recipe.reference, 100 - margin), " " * margin))
    if not options.published:
        _print(f"\n{len(published_settings())} published settings, such as dps/sr-x4: preimage recipes --published")
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
        size = None if options.whole else options.size
        rows = run_demo(options.out, options.samples, size=size, store=store, watch=shown.count)
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
    if shares := report.imagined_samples:
        share = sum(shares) / len(shares)
        lines.append(f"imagined   {share:.1%} of the contrast is the prior's, the rest is fixed by the data")
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
