"""Pascal VOC: one XML file an image, and lists of stems for the splits.

::

    root/JPEGImages/stem.jpg   root/Annotations/stem.xml   root/ImageSets/Main/{train,val,test}.txt

Without the folder of the lists the images are shared out to the splits by a hash of their stems.
"""

from pathlib import Path
from xml.etree import ElementTree

from vrft.data.annotations import Annotation, Counts, Record, image_size, share_out
from vrft.errors import DataError
from vrft.images import stated_size

FILES = {"train": "train.txt", "validation": "val.txt", "test": "test.txt"}
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".JPG", ".JPEG", ".PNG")


class VOCReader:
    """Reads a folder in the layout of Pascal VOC.

    Args:
        root: the folder that holds ``Annotations``, ``JPEGImages`` and ``ImageSets/Main``.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root)

    def read(self, split: str, counts: Counts) -> list[Record]:
        listed = self.root / "ImageSets" / "Main" / FILES[split]
        if listed.parent.is_dir():
            try:
                stems = listed.read_text(encoding="utf-8-sig").split()
            except OSError as error:
                told = f"cannot be read ({error.strerror}); it lists the stems of the split."
                raise DataError(f"{listed}: {told}") from None
        else:
            everything = sorted(path.stem for path in (self.root / "Annotations").glob("*.xml"))
            if not everything:
                lacking = "has neither ImageSets/Main nor Annotations/*.xml."
                raise DataError(f"{self.root}: {lacking} Set root to the folder that holds them.")
            stems = [stem for stem, taken in zip(everything, share_out(everything, split), strict=True) if taken]
        records = []
        for stem in stems:
            image = next((p for s in SUFFIXES if (p := self.root / "JPEGImages" / f"{stem}{s}").is_file()), None)
            if image is None:
                counts["image missing"] += 1
                continue
            records.append(self._record(image, self.root / "Annotations" / f"{stem}.xml", counts))
        return records

    def _record(self, image: Path, path: Path, counts: Counts) -> Record:
        try:
            root = ElementTree.parse(path).getroot()
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror}); {image.name} has no annotation.") from None
        except ElementTree.ParseError as error:
            raise DataError(f"{path}:{error.position[0]}: is no XML ({error}).") from None
        size = image_size(image)
        stated = stated_size(root.findtext("size/width"), root.findtext("size/height"))
        return Record(image, size, tuple(_annotation(path, item) for item in root.findall("object")), stated)


def _annotation(path: Path, item: ElementTree.Element) -> Annotation:
    texts = [item.findtext(f"bndbox/{name}") for name in ("xmin", "ymin", "xmax", "ymax")]
    label = (item.findtext("name") or "").strip()
    try:
        x1, y1, x2, y2 = (float(text or "") for text in texts)
    except ValueError:
        raise DataError(f"{path}: the box of {label!r} is {texts}; expected xmin, ymin, xmax, ymax.") from None
    if not label:
        raise DataError(f"{path}: an object has no name.")
    return Annotation(label, (x1, y1, x2, y2))
