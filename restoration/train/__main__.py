"""`python -m restoration.train RECIPE --data DIR`: the training command with nothing else of the package loaded."""

import argparse
import sys
from pathlib import Path

from restoration.precision import resolve_precision
from restoration.train.loop import TrainRecipe, default_device, train


def main(argv: list[str] | None = None) -> int:
    """Parse, train, print the last validation; 2 where the input is wrong."""
    parser = argparse.ArgumentParser(prog="preimage train", description="Train a denoiser; resumable, bounded by time.")
    parser.add_argument("recipe", type=Path, help="training recipe (JSON), such as assets/training/photo.json")
    parser.add_argument("--data", type=Path, required=True, help="folder of photographs")
    parser.add_argument("--minutes", type=float, required=True, help="wall-clock time of this call")
    parser.add_argument("-o", "--out", type=Path, default=Path("out/train"), help="run folder of a new run")
    parser.add_argument("--resume", type=Path, metavar="PATH", help="run folder to go on with")
    parser.add_argument("--init", type=Path, help="weights to start from; narrower nets are widened, colour made grey")
    parser.add_argument("--threads", type=int, help="CPU threads (default: all)")
    options = parser.parse_args(argv)
    device = default_device()
    print(f"preimage train: on {device.type} in {resolve_precision('auto', device)}", file=sys.stderr)
    try:
        report = train(
            TrainRecipe.read(options.recipe),
            options.data,
            options.resume or options.out,
            minutes=options.minutes,
            resume=options.resume is not None,
            init=options.init,
            device=device,
            threads=options.threads,
        )
    except (OSError, ValueError, TypeError, ArithmeticError) as error:
        print(f"preimage train: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("preimage train: stopped; go on with --resume and the run folder", file=sys.stderr)
        return 130
    print("  ".join(f"{k} {v:.5g}" for k, v in report.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
