"""Lay out the demo's data from installed packages: `python -P benchmarks/assets.py OUT`.

With `--unpack`, OUT is a folder of downloaded wheels instead: the models in them are laid out beside them.

OUT/evaluate/     the 20 ImageNet photos of foolbox; `labels.csv` (header `file,label`, integer class index)
OUT/calibration/  100 crops of the colour photos of scikit-image, none of them scored

Nothing is downloaded, and the same files come out each time. There is no OUT/confirm/: no
third set of labelled ImageNet photos was found in a package, and two halves of 20 photos would tell nothing.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import random
import re
import shutil
import sys
import zipfile
from pathlib import Path

# Photographs only: scikit-image's other colour images are charts, drawings, pictures from a telescope, a
# microscope and an eye doctor, and the right eye's view of the motorcycle, which is the left one over again.
PHOTOS = ("astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png", "rocket.jpg")
MODEL_FILES = (".onnx", ".tflite", ".h5", ".pth", ".safetensors", ".mltk.zip", ".json", ".txt", ".png")
CROPS_PER_PHOTO = 20
SEED = 20


def main(arguments: list[str] | None = None) -> int:
    """Write both folders below OUT and say what lies there."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split(":")[0])
    parser.add_argument("out", type=Path, help="folder that gets evaluate/ and calibration/")
    parser.add_argument("--unpack", action="store_true", help="lay out the models of the wheels in OUT")
    options = parser.parse_args(arguments)
    out: Path = options.out
    try:
        if options.unpack:
            print(f"{out}: {unpack(out)} files out of wheels")
            return 0
        scored = write_evaluate(out / "evaluate")
        crops = write_calibration(out / "calibration")
    except (FileNotFoundError, FileExistsError) as problem:
        print(f"assets: {problem}", file=sys.stderr)
        return 5
    print(f"{out / 'evaluate'}: {scored} labelled photos\n{out / 'calibration'}: {crops} crops")
    return 0


def write_evaluate(folder: Path) -> int:
    """Copy foolbox's ImageNet photos, unchanged, with their labels; return how many."""
    photos = sorted(package_folder("foolbox", "data").glob("imagenet_*_*.jpg"))
    if len(photos) != 20:
        raise FileNotFoundError(f"foolbox has {len(photos)} ImageNet photos, not 20; try foolbox==3.3.4")
    folder = fresh(folder)
    rows = []
    for photo in photos:
        _, number, label = photo.stem.split("_")
        name = f"photo_{number}.jpg"
        shutil.copyfile(photo, folder / name)
        rows.append((name, int(label)))
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("file", "label"))
        writer.writerows(rows)
    return len(rows)


def write_calibration(folder: Path) -> int:
    """Cut square crops out of scikit-image's photos and mirror half of them; return how many."""
    from PIL import Image, ImageOps

    source = package_folder("skimage", "data")
    missing = [name for name in PHOTOS if not (source / name).is_file()]
    if missing:
        raise FileNotFoundError(f"no {', '.join(missing)} in scikit-image's wheel; try scikit-image==0.26.0")
    folder = fresh(folder)
    draw = random.Random(SEED)
    for name in PHOTOS:
        with Image.open(source / name) as opened:
            photo = opened.convert("RGB")
        for index in range(CROPS_PER_PHOTO):
            side = draw.randint(min(photo.size) // 2, min(photo.size))
            left, top = draw.randint(0, photo.width - side), draw.randint(0, photo.height - side)
            crop = photo.crop((left, top, left + side, top + side))
            if index % 2:
                crop = ImageOps.mirror(crop)
            crop.save(folder / f"{Path(name).stem}_{index:02d}.png")
    return CROPS_PER_PHOTO * len(PHOTOS)


def unpack(folder: Path) -> int:
    """Lay out what belongs to models of every wheel in a folder, in OUT/PACKAGE/; return how many files.

    The archives inside (``.mltk.zip``) are laid out too, each in a folder of its name.
    """
    count = 0
    wheels = sorted(folder.glob("*.whl"))
    if not wheels:
        raise FileNotFoundError(f"no wheels in {folder}; `make bench-coverage` downloads them")
    for wheel in wheels:
        package = wheel.name.split("-")[0]
        with zipfile.ZipFile(wheel) as archive:
            count += _members(archive, folder / package)
    for inner in sorted(folder.rglob("*.mltk.zip")):
        with zipfile.ZipFile(inner) as archive:
            count += _members(archive, inner.with_name(inner.name.removesuffix(".mltk.zip")))
    return count


def _members(archive: zipfile.ZipFile, out: Path) -> int:
    wanted = [name for name in archive.namelist() if name.endswith(MODEL_FILES)]
    for name in wanted:
        if name.startswith("/") or ".." in Path(name).parts:
            raise FileNotFoundError(f"{archive.filename} wants to write to {name}")
        archive.extract(name, out)
    return len(wanted)


def package_folder(package: str, *below: str) -> Path:
    """Folder inside an installed package, found without importing it: what foolbox imports isn't there."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise FileNotFoundError(f"the package {package!r} isn't installed here; `make setup` installs it")
    return Path(spec.origin).parent.joinpath(*below)


def fresh(folder: Path) -> Path:
    """The folder without what an earlier run wrote; a stranger's would be scored too, so it's refused."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in sorted(folder.iterdir()):
        if old.is_dir() or not re.fullmatch(r"labels\.csv|[a-z_]+_\d\d\.(jpg|png)", old.name):
            raise FileExistsError(f"{old} is none of this script's files; give another folder")
        old.unlink()
    return folder


if __name__ == "__main__":
    sys.exit(main())
