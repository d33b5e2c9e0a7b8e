"""Guesses about tables: which columns hold the images, the labels, grades or boxes, splits and patients.

A column is known by its title and by its cells: that of the images by cells that are files, a grade by whole numbers
from 0, a split by the names of splits. Where title and cells leave two columns, the reasons say so.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

from vrft.data.annotations import parse_number
from vrft.data.guess import TABLE_TO_WRITE, Guess, Tree, add_patients
from vrft.data.splits import split_named
from vrft.data.tabular import TableFile, as_text, is_empty, open_table
from vrft.errors import DataError, UserError
from vrft.images import inspect

READ = 100_000
"""Rows that are read to know a table."""

IMAGE = {"image", "images", "img", "file", "filename", "path", "filepath", "picture", "scan", "dicom", "photo", "slide"}
LABEL = {
    "label",
    "labels",
    "class",
    "classes",
    "category",
    "diagnosis",
    "dx",
    "finding",
    "findings",
    "target",
    "disease",
}
LABEL |= {"pathology", "subtype", "condition", "cls"}
GRADE = {"grade", "score", "stage", "level", "severity", "kl", "birads", "icdr", "gleason", "global"}
SPLIT = {"split", "set", "subset", "partition", "fold", "phase"}
PATIENT = {"patient", "subject", "pid", "mrn", "case"}
SUBGROUP = {"hospital", "site", "scanner", "center", "centre", "institution", "manufacturer", "vendor", "sex", "gender"}
STUDY = {"study", "exam", "accession", "visit", "series"}
QUESTION, ANSWER = {"question"}, {"answer"}
BOXES = {"boxes", "bbox", "bboxes", "box", "objects", "annotations"}
NO_LABEL = {
    "id",
    "qid",
    "md5",
    "hash",
    "url",
    "link",
    "date",
    "time",
    "age",
    "bytes",
    "size",
    "rows",
    "columns",
    "width",
}
NO_LABEL |= {"height", "frames", "bits", "note", "comment", "licence", "license", "doi", "question", "answer", "phrase"}

CORNERS = tuple(
    form.split()
    for form in (
        *("xmin ymin xmax ymax", "x1 y1 x2 y2", "x0 y0 x1 y1", "left top right bottom"),
        *("xtl ytl xbr ybr", "minx miny maxx maxy"),
    )
)
SIZES = tuple(
    form.split()
    for form in (
        *("x y w h", "x y width height", "left top width height", "xmin ymin width height"),
        *("xmin ymin w h", "x1 y1 w h"),
    )
)


@dataclass
class Images:
    """The column of the images, and how its cells become files."""

    title: str
    files: list[Path]
    """Of the rows in which an image was found."""
    rows: int
    file_name: str | None
    by_stem: bool


class Names:
    """The images of a tree and the folders with images, by name, by stem and by number."""

    def __init__(self, tree: Tree) -> None:
        self.by_name: dict[str, Path] = {}
        self.by_stem: dict[str, list[Path]] = {}
        for path in [*tree.images, *{image.parent for image in tree.images if image.parent != tree.root}]:
            self.by_name.setdefault(path.name.lower(), path)
            self.by_stem.setdefault(_stem(path.name).lower(), []).append(path)

    def find(self, cell: Any, padded: int = 0) -> tuple[Path | None, bool]:
        """The file of a cell, and whether the cell lacks the suffix."""
        name = as_text(cell).replace("\\", "/").rpartition("/")[2].lower()
        if not name or is_empty(cell):
            return None, False
        if padded and name.isdecimal():
            name = name.zfill(padded)
        if name in self.by_name:
            return self.by_name[name], False
        found = self.by_stem.get(name) or self.by_stem.get(_stem(name)) or []
        return next(iter(sorted(found, key=lambda path: path.suffix.lower() == ".png")), None), True


def _stem(name: str) -> str:
    return re.sub(r"(\.nii\.gz|\.[A-Za-z][A-Za-z0-9]{0,4})$", "", name) or name


def words_of(title: str) -> set[str]:
    """The words of a title in lower case.

    >>> sorted(words_of("dr_gradeLevel 2"))
    ['2', 'dr', 'grade', 'level']
    """
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[0-9]+", title)}


def guess_table(path: Path, tree: Tree, *, asked: bool = False) -> list[Guess]:
    """The guess about a table; none where it names no image.

    Args:
        path: of the table.
        tree: in which its images are searched.
        asked: the user named this table, so that a reason is given where it is none.

    Raises:
        UserError: it is no table, or it was asked for and cannot be used.
    """
    if path.suffix.lower() == ".parquet" and find_spec("pyarrow"):
        from vrft.data.guess_packed import guess_packed, has_images  # it needs what is defined here

        if has_images(path):  # a dataset
            only = Tree(path.parent)
            only.files = {path.parent: [path.name]}
            return guess_packed(only) if asked else []
    table = open_table(path)
    titles = table.titles
    if len(set(titles)) < len(titles):
        repeated = next(title for title in titles if titles.count(title) > 1)
        raise DataError(f"{path}: has several columns {repeated!r}; rename them.")
    cells = _cells(table, titles)
    if not next(iter(cells.values()), []):
        raise DataError(f"{path}: holds no rows.")
    found = _images(cells, Names(tree))
    root = tree.root
    if not found and asked and tree.root.absolute().parent != tree.root.absolute():
        wider = Tree(Path(str(tree.root)) / "..") if str(tree.root) in (".", "") else Tree(tree.root.parent)
        found, root = _images(cells, Names(wider)), wider.root
    if not found:
        if asked:
            raise UserError(
                f"{path}: no column names images that are in {tree.root} or beside it (columns: "
                f"{', '.join(titles)[:200]}); put the table into the folder of the images, or name the images in it:\n"
                f"{TABLE_TO_WRITE}"
            )
        return []
    guess = _of_table(path, root, titles, cells, found)
    if guess is None:
        if asked:
            raise UserError(
                f"{path}: names images, and no column holds a label, a grade or boxes (columns: "
                f"{', '.join(titles)[:200]}); add one:\n{TABLE_TO_WRITE}"
            )
        return []
    return [guess]


def _cells(table: TableFile, titles: Sequence[str]) -> dict[str, list[Any]]:
    """The cells of each column, of the first rows."""
    cells: dict[str, list[Any]] = {title: [] for title in titles}
    for _, values in islice(table.rows(list(titles)), READ):
        for title, value in zip(titles, values, strict=True):
            cells[title].append(value)
    return cells


# --- images -----------------------------------------------------------------------------------------------------------


def _images(cells: Mapping[str, list[Any]], names: Names) -> list[Images]:
    """The columns that name images, the likeliest first."""
    ranked: list[tuple[float, Images]] = []
    for title, column in cells.items():
        if "mask" in words_of(title):
            continue
        flat = [one for cell in column for one in (cell if isinstance(cell, list) else [cell])]
        known = [value for value in flat if isinstance(value, str | int) and not isinstance(value, bool)]
        known = [value for value in known if not is_empty(value)]
        if not known:
            continue
        best: Images | None = None
        for padded in (0, *range(2, 10)):
            if padded and not all(as_text(value).isdecimal() for value in known[:100]):
                break
            hits = [
                (found, stem)
                for value in known
                if (found := (hit := names.find(value, padded))[0])
                for stem in [hit[1]]
            ]
            if hits and (best is None or len(hits) > len(best.files)):
                by_stem = any(stem for _, stem in hits)
                files = [file for file, _ in hits]
                best = Images(title, files, len(column), _file_name(files, by_stem, padded, known), by_stem)
        if best is None:
            continue
        titled = bool(words_of(title) & IMAGE) or words_of(title) <= {"id", "name", "code", "image", "case", "study"}
        numeric = all(as_text(value).isdecimal() for value in known[:100])
        different = len(set(best.files)) / len(known)
        folders = not any("." in file.name for file in best.files)  # of series, or those of classes
        if ((numeric and not titled) or folders) and different < 0.5:
            continue
        named = not numeric and not best.by_stem
        if len(best.files) < 0.05 * len(known) and not (titled or named):
            continue
        ranked.append((len(best.files) / len(known) + 0.5 * titled + 0.2 * named + 0.1 * different, best))
    return [one for _, one in sorted(ranked, key=lambda pair: -pair[0])]


def _file_name(files: Sequence[Path], by_stem: bool, padded: int, known: Sequence[Any]) -> str | None:
    """How cells without a suffix, or without zeros in front, become names of files."""
    if not by_stem or any(
        has.suffix and as_text(cell).lower().endswith(has.suffix.lower()) for has, cell in [(files[0], known[0])]
    ):
        return None
    suffixes = Counter(file.name[len(_stem(file.name)) :] for file in files)
    if len(suffixes) > 1 and not padded:
        return None
    inner = f":0{padded}" if padded else ""
    return f"{{{inner}}}{suffixes.most_common(1)[0][0]}"


def _folder(files: Sequence[Path], root: Path) -> str:
    """The folder of the images in the root."""
    folders = {file.parent for file in files}
    common = next(iter(folders))
    while not all(folder.is_relative_to(common) for folder in folders):
        common = common.parent
    return common.relative_to(root).as_posix() if common.is_relative_to(root) else "."


# --- targets ----------------------------------------------------------------------------------------------------------


def _of_table(
    path: Path, root: Path, titles: list[str], cells: dict[str, list[Any]], found: list[Images]
) -> Guess | None:
    images = found[0]
    columns: dict[str, Any] = {"image": images.title}
    data: dict[str, Any] = {"root": str(root), "file": path.relative_to(root).as_posix()}
    if (folder := _folder_of_cells(images, cells[images.title], root)) != ".":
        data["images"] = folder
    if images.file_name:
        data["file_name"] = images.file_name
    data["columns"] = columns
    guess = Guess("table", "", 0, "a table", data)
    guess.why.append(
        f"{path.name} has {images.rows:,}{'+' if images.rows == READ else ''} rows and the columns "
        f"{', '.join(titles)[:300]}; {images.title!r} names images ({len(images.files):,} of the names are files that "
        f"are there, {len(set(images.files)):,} different)."
    )
    rest = [title for title in titles if title != images.title]
    others = [one.title for one in found[1:] if len(one.files) > 0.9 * len(images.files) and not one.by_stem]
    if others and not images.by_stem and not any(isinstance(cell, list) for cell in cells[images.title]):
        columns["image"] = [images.title, *others]
        guess.why.append(f"{', '.join(map(repr, others))} name images too: they are shown together (columns.image).")
        rest = [title for title in rest if title not in others]
    sure = fill(guess, rest, cells, images)
    if not guess.kind:
        return None
    if images.file_name:
        guess.notes["file_name"] = f"a cell such as {as_text(cells[images.title][0])!r} becomes the name of a file so"
    _add_coverage(guess, images)
    share = len(images.files) / max(images.rows, 1)
    guess.score = (80 if sure else 55) - (12 if share < 0.5 else 0) + _named_so(path)
    if "patient" not in columns:
        add_patients(guess, sorted({file.name for file in images.files}))
    return guess


def fill(guess: Guess, rest: list[str], cells: Mapping[str, list[Any]], images: Images) -> bool:
    """Fill in the columns of a guess: splits, patients, subgroups, and the target with the kind of the task.

    Args:
        guess: gets ``data.columns``, and a kind where a target was found.
        rest: the titles that may be used.
        cells: the cells of each title, and of that of the images.
        images: the column of the images.

    Returns:
        Whether the title of the target says what it is.
    """
    columns = guess.data["columns"]
    _add_facts(guess, columns, rest, cells)
    return _add_target(guess, columns, rest, cells, images)


def _folder_of_cells(images: Images, cells: Sequence[Any], root: Path) -> str:
    """The folder from which the names in the cells lead to files; else the folder that holds all of these."""
    bases = Counter[Path]()
    for cell, file in list(zip(cells, images.files, strict=False))[:1000]:
        parts = len(as_text(cell).replace("\\", "/").split("/")) if not isinstance(cell, list) else 1
        bases[file.parents[min(parts, len(file.parents)) - 1]] += 1
    base = bases.most_common(1)[0][0]
    if base.is_relative_to(root) and all(file.is_relative_to(base) for file in images.files):
        return base.relative_to(root).as_posix()
    return _folder(images.files, root)


def _named_so(path: Path) -> int:
    """Points for a table whose name says that it holds annotations, or that it does not."""
    words = words_of(path.stem) | {path.stem.lower()}
    if words & {"label", "labels", "annotation", "annotations", "train", "grades", "truth", "gt", "bbox", "box"}:
        return 3
    return (
        -20 if words & {"licence", "licences", "license", "licenses", "sources", "index", "metadata", "readme"} else 0
    )


def _add_coverage(guess: Guess, images: Images) -> None:
    """Say where rows name images that are not there."""
    missing = images.rows - len(images.files)
    if missing > 0 and not isinstance(guess.data["columns"]["image"], list):
        guess.why.append(f"{missing:,} of {images.rows:,} rows name an image that is not there.")


def _add_facts(guess: Guess, columns: dict[str, Any], rest: list[str], cells: Mapping[str, list[Any]]) -> None:
    """Columns of splits, patients, subgroups and studies."""
    for key, words in (("split", SPLIT), ("patient", PATIENT), ("subgroup", SUBGROUP), ("study", STUDY)):
        for title in rest:
            values = [
                as_text(cell) for cell in cells[title] if not is_empty(cell) and not isinstance(cell, list | dict)
            ]
            different = len(set(values))
            fits = bool(words_of(title) & words) and (
                bool(values) and all(map(split_named, set(values)))
                if key == "split"
                else 2 <= different <= 50
                if key == "subgroup"
                else len(values) == len(cells[title]) and different > 1
            )
            if not fits:
                continue
            rest.remove(title)
            if key == "study":
                if different < len(values):
                    guess.options.append(
                        f"columns.study: {title}  # rows of one study become one sample of several images"
                    )
                break
            if len(values) < len(cells[title]) and key == "split":
                guess.why.append(f"{title!r} may be the split, and is empty in some rows, so it was left out.")
                break
            columns[key] = title
            shown = ": " + ", ".join(sorted(set(values))[:6]) if key != "patient" else f", {different:,} of them"
            guess.why.append(f"{title!r} was taken for the {key}{shown}.")
            break


def _add_target(
    guess: Guess, columns: dict[str, Any], rest: list[str], cells: Mapping[str, list[Any]], images: Images
) -> bool:
    """The target and the kind of the task; whether the title says so."""
    fits: dict[str, Any] = {}
    boxes = _box_columns(rest)
    if boxes:
        key, four = boxes
        label = _label(guess, [title for title in rest if title not in four], cells, None)
        columns[key] = four
        _check_boxes(guess, columns, key, four, cells, images)
        if label:
            columns["label"] = label[0]
            guess.why.append(f"{label[0]!r} was taken for the label of a box.")
            guess.kind, guess.kinds = "localization", ("localization", "classification")
            boxed = Counter(map(str, cells[images.title]))
            guess.boxes = sorted(boxed.values())[int(0.9 * (len(boxed) - 1))]
        else:
            guess.why.append("No column holds the label of a box; add one (columns.label).")
        return True
    for title in rest:
        if words_of(title) & BOXES and (shape := _cell_boxes(cells[title])):
            fits["boxes"] = (title, shape)
            break
    grade = _grade(guess, rest, cells)
    label = _label(guess, [title for title in rest if title != fits.get("boxes", "  ")[0]], cells, cells[images.title])
    one_hot = _one_hot(rest, cells)
    if grade:
        columns["grade"] = grade
        guess.kind, guess.kinds = "grading", ("grading",)
        if label and label[1]:
            columns["label"] = label[0]
            guess.kinds = ("grading", "classification")
            guess.why.append(f"{label[0]!r} is a label as well; set task.kind to classification for that.")
    elif label and label[1]:
        columns["label"] = label[0]
        guess.kind, guess.kinds = "classification", ("classification", "grading")
        _say_labels(guess, label[0], cells[label[0]])
    elif "boxes" in fits:
        pass
    elif one_hot:
        columns["label"] = one_hot
        guess.kind, guess.kinds = "classification", ("classification",)
        guess.why.append(
            f"A single one of {len(one_hot)} columns holds a 1 in each row; they were taken for the labels."
        )
    elif label:
        columns["label"] = label[0]
        guess.kind, guess.kinds = "classification", ("classification",)
        guess.why.append(
            f"No title says what the label is; {label[0]!r} has few different values and was taken for it."
        )
        _say_labels(guess, label[0], cells[label[0]])
    if "boxes" in fits:
        columns["boxes"], shape = fits["boxes"]
        if shape == "corner_and_size":
            guess.data["box_format"] = shape
        if not guess.kind:
            guess.kind, guess.kinds = "localization", ("localization",)
            guess.why.append(f"{columns['boxes']!r} holds the boxes of each image, read as {shape.replace('_', ' ')}.")
    question, answer = (next((t for t in rest if words_of(t) & words), None) for words in (QUESTION, ANSWER))
    if question and answer:
        values = {as_text(value).lower() for value in cells[answer]}
        if len(values) <= 20 and not (grade or (label and label[1])):
            columns |= {"label": answer, "question": question}
            guess.kind, guess.kinds = "classification", ("classification",)
            guess.why.append(
                f"{answer!r} has {len(values)} different values: a closed answer to the question in {question!r}."
            )
            return True
        guess.why.append(
            f"{question!r} and {answer!r} hold questions with {len(values):,} different answers, of which a recipe "
            f"makes no task; where answers are closed (yes, no), set columns.label to {answer!r} and columns.question "
            f"to {question!r}."
        )
    return bool(grade or (label and label[1]) or one_hot or "boxes" in fits)


def _say_labels(guess: Guess, title: str, column: Sequence[Any]) -> None:
    counts = Counter(as_text(value) for value in column if not is_empty(value))
    shown = ", ".join(f"{value} {count:,}" for value, count in counts.most_common(10))
    guess.why.append(f"{title!r} was taken for the label: {shown}.")
    if all(value.isdecimal() for value in counts):
        names = ", ".join(f"{value}: NAME" for value in sorted(counts, key=int)[:4])
        guess.options.append(f"label_names: {{{names}}}  # a policy knows words better than numbers")
        guess.why.append("If these numbers have an order, they are grades: set task.kind to grading.")


def _label(
    guess: Guess, rest: Sequence[str], cells: Mapping[str, list[Any]], images: Sequence[Any] | None
) -> tuple[str, bool] | None:
    """The column of the label, and whether its title says so; with ``images`` one without such a title is constant
    within an image."""
    fitting: list[tuple[bool, float, str]] = []
    for title in rest:
        values = [
            as_text(value) for value in cells[title] if not is_empty(value) and not isinstance(value, list | dict)
        ]
        counts = Counter(values)
        titled = bool(words_of(title) & LABEL)
        least = 2 if images else 1  # boxes may all have one label
        if len(values) < 0.5 * len(cells[title]) or not least <= len(counts) <= (200 if titled else 20):
            continue
        if len(counts) > max(2, len(values) // 2) or any(re.fullmatch(r"-?\d+\.\d+", value) for value in counts):
            continue
        if not titled and (words_of(title) & NO_LABEL or all(value.isdecimal() for value in counts)):
            continue
        pairs = {(str(image), as_text(value)) for image, value in zip(images or (), cells[title], strict=False)}
        if not titled and len(pairs) > len({image for image, _ in pairs}):
            continue
        length = 0 if titled else sum(map(len, counts)) / len(counts)
        fitting.append((not titled, length, title))
    if not fitting:
        return None
    best = min(fitting, key=lambda one: one[:2])
    if others := [title for untitled, _, title in sorted(fitting) if title != best[2] and untitled == best[0]]:
        guess.why.append(f"Columns that may also be the label: {', '.join(map(repr, others[:8]))} (columns.label).")
    return best[2], not best[0]


def _grade(guess: Guess, rest: Sequence[str], cells: Mapping[str, list[Any]]) -> str | None:
    """The column of the grade: whole numbers from 0 below a title that says so."""
    fitting = []
    for title in rest:
        values = [
            as_text(value) for value in cells[title] if not is_empty(value) and not isinstance(value, list | dict)
        ]
        if not words_of(title) & GRADE or len(values) < 0.5 * len(cells[title]):
            continue
        if not all(re.fullmatch("[0-9]{1,2}", value) for value in values) or len(set(values)) < 2:
            continue
        fitting.append((title, sorted({int(value) for value in values})))
    if not fitting:
        return None
    title, grades = fitting[0]
    guess.why.append(f"{title!r} was taken for the grade: {grades[0]} to {grades[-1]}.")
    if others := [other for other, _ in fitting[1:]]:
        guess.why.append(f"Further columns of grades: {', '.join(map(repr, others[:8]))} (columns.grade).")
    if grades[0] > 0:
        guess.task["levels"] = grades[-1] + 1
        guess.why.append("No row has the grade 0, so task.levels says how many grades there are, 0 included.")
    return title


def _one_hot(rest: Sequence[str], cells: Mapping[str, list[Any]]) -> list[str] | None:
    """Columns of which one holds a 1 in each row."""
    flags = [
        title
        for title in rest
        if {as_text(value) for value in cells[title]} <= {"0", "1"} and any(as_text(v) == "1" for v in cells[title])
    ]
    if len(flags) < 2:
        return None
    sums = [sum(as_text(value) == "1" for value in row) for row in zip(*(cells[title] for title in flags), strict=True)]
    return flags if all(total == 1 for total in sums) else None


# --- boxes ------------------------------------------------------------------------------------------------------------


def _box_columns(titles: Sequence[str]) -> tuple[str, list[str]] | None:
    """Four columns of a box, by their titles."""
    plain = {re.sub(r"^(bbox|bndbox|box|bb)(?=.)", "", re.sub(r"[\W_]+", "", title.lower())): title for title in titles}
    for key, forms in (("corners", CORNERS), ("corner_and_size", SIZES)):
        for form in forms:
            if all(name in plain for name in form):
                return key, [plain[name] for name in form]
    return None


def _check_boxes(
    guess: Guess, columns: dict[str, Any], key: str, four: list[str], cells: Mapping[str, list[Any]], images: Images
) -> None:
    """Say how the boxes of the columns were read, and whether they fit into the images."""
    rows = [
        [parse_number(as_text(cells[title][at]).replace(",", ".")) for title in four]
        for at in range(len(cells[four[0]]))
    ]
    boxes = [[float(number or 0) for number in row] for row in rows if None not in row]
    if boxes and all(0 <= number <= 1.5 for box in boxes for number in box):
        guess.why.append("The boxes are shares of the image; pixels are expected: multiply them by width and height.")
    rising = all(box[0] < box[2] and box[1] < box[3] for box in boxes)
    if (
        key == "corners"
        and boxes
        and not rising
        and sum(b[2] <= b[0] or b[3] <= b[1] for b in boxes) > 0.1 * len(boxes)
    ):
        columns["corner_and_size"] = columns.pop("corners")
        guess.why.append(
            f"Columns {', '.join(four)} were taken for x, y, width, height: as corners many would be swapped."
        )
        return
    words = "corners x1, y1, x2, y2" if key == "corners" else "x, y, width, height"
    guess.why.append(f"Columns {', '.join(four)} were taken for the {words} of a box a row, by their titles.")
    if key == "corner_and_size" and rising and boxes and not _fit(boxes, images):
        guess.why.append(
            "As width and height some boxes leave their images; if they are corners, write columns.corners."
        )


def _fit(boxes: Sequence[Sequence[float]], images: Images) -> bool:
    """Whether boxes of x, y, width, height stay inside the largest of the images."""
    sizes = []
    for file in list(dict.fromkeys(images.files))[:50]:
        with suppress(UserError):
            sizes.append(inspect(file, any_page=True).size)
    if not sizes:
        return True
    width, height = (max(size[axis] for size in sizes) for axis in (0, 1))
    return sum(x + w > 1.02 * width or y + h > 1.02 * height for x, y, w, h in boxes) <= 0.05 * len(boxes)


def _cell_boxes(column: Sequence[Any]) -> str | None:
    """The form of the boxes in the cells of a column; None where they are no boxes."""
    import json

    found: list[list[float]] = []
    for cell in column[:2000]:
        value = cell
        if isinstance(cell, str):
            if is_empty(cell):
                continue
            try:
                value = json.loads(cell)
            except (ValueError, RecursionError):
                return None
        if isinstance(value, dict):
            value = value.get("bbox") or value.get("boxes") or []
        if not isinstance(value, list):
            return None
        one = len(value) == 4 and all(isinstance(number, int | float) for number in value)
        for item in [value] if one else value:
            box = (
                next((item[key] for key in ("bbox_2d", "bbox", "box") if key in item), None)
                if isinstance(item, dict)
                else item
            )
            if not isinstance(box, list) or len(box) != 4 or not all(isinstance(number, int | float) for number in box):
                return None
            found.append([float(number) for number in box])
    if not found:
        return None
    return "corners" if all(box[0] < box[2] and box[1] < box[3] for box in found) else "corner_and_size"
