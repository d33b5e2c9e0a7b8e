"""Text files of users in unknown encodings: one function for all sources.

The rule, in this order:

1. a byte-order mark (UTF-8, UTF-16, UTF-32);
2. UTF-8, if the bytes are valid UTF-8; but the declaration of a multi-byte encoding in an XML file has precedence,
   unless the text holds characters from U+0800 on, which no other encoding gives by chance;
3. the encoding that an XML file declares, then the encoding in the recipe;
4. GB18030, if all characters beyond ASCII are common Chinese, and cannot be Korean or Russian;
5. Windows-1252 (which includes Latin-1), if all characters beyond ASCII are letters of western Europe inside words;
6. UTF-16 without a mark, where every second byte is zero.

Where both 4 and 5 fit, or none, the file is refused. A file that is not UTF-8 is counted.
"""

import codecs
import io
import re
from collections import Counter
from pathlib import Path

from vrft.errors import DataError, reading

MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16, whose mark it begins with
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}

ENCODINGS = (
    *("gb18030", "big5", "shift_jis", "euc_jp", "euc_kr"),
    *("cp1250", "cp1251", "cp1252", "cp1253", "cp1254", "cp1255", "cp1256", "utf-16"),
)
"""The encodings that a recipe may name."""

WIDER = {
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "iso8859-1": "cp1252",
    "ascii": "utf-8",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
}
"""The wider encoding to use for a name; files often exceed the encoding that they name."""

SEVERAL_BYTES = {"gb18030", "big5", "cp932", "euc_jp", "cp949"}

_DECLARED = re.compile(rb"""\s*<\?xml[^>]{0,200}?encoding\s*=\s*["']([A-Za-z0-9._-]{1,40})["']""")
_LETTERS = "ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÑÒÓÔÕÖØÙÚÛÜßàáâãäåæçèéêëìíîïñòóôõöøùúûüÿŒœŸ"
_SIGNS = "‘’“”–—…°±µ²³·«»€§©®™×\xa0"
_FOREIGN = re.compile(
    rf"[^\x00-\x7F{_LETTERS}{_SIGNS}]"  # none of western Europe
    rf"|[{_LETTERS}]{{3}}"  # a word of them alone, as in Russian
    rf"|(?<![A-Za-z{_LETTERS}])(?![àÀ](?![{_LETTERS}]))[{_LETTERS}]+(?![A-Za-z{_LETTERS}])"
    rf"|(?<=[A-Za-z{_LETTERS}])[^\x00-\x7F{_LETTERS}’](?=[A-Za-z{_LETTERS}])"  # a sign inside a word
)


def read_text(
    path: Path, counts: Counter[str], encoding: str | None = None, *, key: str | None = "data.encoding"
) -> str:
    r"""Read a text file by the rule of this module; line ends become ``\n``.

    Args:
        path: of the file.
        counts: ``text in ENCODING`` is counted where it is not UTF-8.
        encoding: of a file that is not UTF-8, from the recipe.
        key: of the recipe for the encoding, in messages; None where there is none.

    Raises:
        DataError: the file is missing, or its encoding is unknown.
    """
    with reading(path):
        data = path.read_bytes()
        found = decode(data, encoding)
    if found is None:
        if b"\0" in data or data[:4] == b"PK\x03\x04":
            raise DataError(f"{path}: is no text but binary data (a workbook?); save it as plain text in UTF-8.")
        fault = f"not {encoding} either" if encoding else "its encoding cannot be recognised"
        remedy = f", or set {key} to its encoding" if key else ""
        raise DataError(f"{path}: is not UTF-8, and {fault}; save it as UTF-8{remedy}.")
    text, name = found
    if name not in ("utf-8", "utf-8-sig"):
        counts[f"text in {name}"] += 1
    return text.replace("\r\n", "\n").replace("\r", "\n")


def decode(data: bytes, encoding: str | None = None) -> tuple[str, str] | None:
    """The text in some bytes and the name of its encoding, or None where it cannot be recognised.

    >>> decode("肺炎".encode("gbk"))
    ('肺炎', 'gb18030')
    >>> decode("Läsion".encode("latin-1"))
    ('Läsion', 'cp1252')
    """
    for mark, name in MARKS.items():
        if data.startswith(mark):
            return _strictly(data, name)
    declared = _wider(match[1].decode()) if (match := _DECLARED.match(data)) else None
    utf8 = _strictly(data, "utf-8")
    if utf8 is not None and "\0" not in utf8[0]:
        sure = declared not in SEVERAL_BYTES or utf8[0].isascii() or max(utf8[0]) >= "\u0800"
        return utf8 if sure else _strictly(data, str(declared)) or utf8
    if utf8 is None:
        for named in (declared, encoding and _wider(encoding)):
            if named is not None and (found := _strictly(data, named)) and "\0" not in found[0]:
                return found
        if encoding is not None:
            return None
        likely = [found for found in (_chinese(data), _european(data)) if found is not None]
        if b"\0" not in data:
            return likely[0] if len(likely) == 1 else None
    return _without_mark(data)


def _strictly(data: bytes, name: str) -> tuple[str, str] | None:
    try:
        return data.decode(name), name
    except (LookupError, ValueError):
        return None


def _wider(name: str) -> str | None:
    """The encoding to use for a name; None for an unknown name."""
    try:
        known = codecs.lookup(name).name
    except LookupError:
        return None
    return WIDER.get(known, known)


def _chinese(data: bytes) -> tuple[str, str] | None:
    """GB18030, if two of three characters are in its first level, the common characters.

    The bytes of Korean syllables, and of common characters of Big5, cover some 60% of the first level, so a character
    beyond them is required. Russian in a single letter case consists of the bytes 0xC0 to 0xDF alone.
    """
    found = _strictly(data, "gb18030")
    if found is None:
        return None
    pairs = [one.encode("gb18030") for one in set(found[0]) if not one.isascii()]
    if not pairs or any(len(pair) != 2 or pair[1] < 0xA1 for pair in pairs):
        return None
    first = sum(0xB0 <= pair[0] <= 0xD7 for pair in pairs)
    second = sum(0xD8 <= pair[0] <= 0xF7 for pair in pairs)
    signs = sum(0xA1 <= pair[0] <= 0xA3 for pair in pairs)
    beyond = any(0xC9 <= pair[0] <= 0xD7 for pair in pairs) and not all(
        0xC0 <= byte <= 0xDF for pair in pairs for byte in pair
    )
    return found if beyond and first >= 2 * second and first + second + signs == len(pairs) else None


def _european(data: bytes) -> tuple[str, str] | None:
    found = _strictly(data, "cp1252")
    return found if found is not None and not _FOREIGN.search(found[0]) else None


def _without_mark(data: bytes) -> tuple[str, str] | None:
    """UTF-16 of mostly ASCII: one of the two bytes of a character is nearly always zero, the other never."""
    for name, zero, other in (("utf-16-le", data[1::2], data[::2]), ("utf-16-be", data[::2], data[1::2])):
        if b"\0" not in other and zero.count(0) > 0.7 * len(zero):
            return _strictly(data, name)
    return None


def open_text(path: Path, counts: Counter[str], encoding: str | None = None) -> io.TextIOBase:
    r"""Open a text file by the rule of this module; line ends become ``\n``.

    A file in UTF-8 is streamed; any other is read whole.

    Raises:
        DataError: as ``read_text``.
    """
    try:
        with path.open("rb") as file:
            decoder = codecs.getincrementaldecoder("utf-8")()
            start = file.read(1 << 20)
            block, wide = start, False
            while block:
                wide = wide or b"\0" in block
                decoder.decode(block)
                block = file.read(1 << 20)
            decoder.decode(b"", final=True)
        if not wide and not any(start.startswith(mark) for mark in MARKS if mark != codecs.BOM_UTF8):
            return path.open(encoding="utf-8-sig", newline=None)
    except (OSError, ValueError):
        pass  # ``read_text`` has the message
    return io.StringIO(read_text(path, counts, encoding))
