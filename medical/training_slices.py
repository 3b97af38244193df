"""Grey pictures to train a medical prior on: `python -m medical.training_slices brain|ct|xray SOURCE -o FOLDER`.

Slices of subjects that are kept back for validation and tests are named `held_...`, so that a training recipe keeps
them back with the pattern `held_*`. The split is by subject, never by slice.
"""

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import nibabel
import numpy as np
from numpy.typing import NDArray
from PIL import Image

Slice = tuple[str, NDArray[np.float64]]
"""A name, and a picture in [0, 1]."""

BRAIN_HELD_OUT = ("patient01", "patient03")
# The archive numbers slices, not subjects; neighbours in number come from one subject. Keeping back the end of each
# class shares at most one subject a class between the two sides.
CT_HELD_OUT_SHARE = 0.2
XRAY_HELD_OUT_SHARE = 0.2


def unit_scale(volume: NDArray[np.float64]) -> float:
    """The value that becomes 1: the 99.9th percentile of the positive voxels.

    Raises:
        ValueError: no voxel is positive.
    """
    positive = volume[volume > 0]
    if not positive.size:
        raise ValueError("Expected a volume with positive voxels, got none; leave the file out.")
    return float(np.percentile(positive, 99.9))


def brain(folder: Path) -> Iterator[Slice]:
    """Slices of T1 and FLAIR volumes, upright, that hold some brain; isotropic volumes are cut in three directions."""
    for path in sorted(folder.glob("*/*/*.nii*")):
        if re.match(r"(gt|GOLD_STANDARD)", path.name):
            continue
        image = nibabel.as_closest_canonical(nibabel.load(path))
        volume = np.asarray(image.get_fdata(dtype=np.float64))
        volume = np.clip(volume / unit_scale(volume), 0, 1)
        zooms = image.header.get_zooms()[:3]
        subject = path.parent.name
        side = "held" if subject in BRAIN_HELD_OUT else "train"
        contrast = "flair" if "FLAIR" in path.name.split("_")[0] + path.name.split("_")[1] else "t1"
        for axis, direction in enumerate(("sagittal", "coronal", "axial")):
            if direction != "axial" and max(zooms) > 1.2 * min(zooms):
                continue
            for index in range(volume.shape[axis]):
                plane = np.flipud(volume.take(index, axis).T)
                if (plane > 0.1).mean() > 0.15:
                    yield f"{side}_{subject}_{path.parent.parent.name}_{contrast}_{direction}_{index:03d}", plane


def archive(path: Path, share: float) -> Iterator[Slice]:
    """The 8-bit pictures of an archive (arrays x, label, path); the last `share` of each class is kept back."""
    with np.load(path, allow_pickle=False) as arrays:
        pictures, labels, names = arrays["x"], arrays["label"], arrays["path"]
    numbers = np.array([int((re.findall(r"\d+", Path(str(name)).stem) or ["0"])[-1]) for name in names])
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        members = members[np.argsort(numbers[members], kind="stable")]
        kept_back = len(members) - round(share * len(members))
        for place, member in enumerate(members):
            side = "held" if place >= kept_back else "train"
            word = re.sub(r"\W+", "-", str(label)).strip("-").lower()
            yield f"{side}_{word}_{place:04d}", pictures[member] / 255


def main(argv: list[str] | None = None) -> int:
    """Write one 8-bit PNG a slice."""
    parser = argparse.ArgumentParser(prog="python -m medical.training_slices", description=__doc__)
    parser.add_argument("kind", choices=("brain", "ct", "xray"))
    parser.add_argument("source", type=Path, help="folder of volumes (brain) or .npz archive (ct, xray)")
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder to write; it must not exist yet")
    options = parser.parse_args(argv)
    shares = {"ct": CT_HELD_OUT_SHARE, "xray": XRAY_HELD_OUT_SHARE}
    slices = brain(options.source) if options.kind == "brain" else archive(options.source, shares[options.kind])
    options.out.mkdir(parents=True)
    count = 0
    for name, plane in slices:
        Image.fromarray(np.rint(plane * 255).astype(np.uint8)).save(options.out / f"{name}.png")
        count += 1
    print(f"{count} slices in {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
