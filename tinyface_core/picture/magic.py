"""What a file is, by its first bytes alone: a picture format that we decode, or the reason why it is none.

Knows signatures, nothing of what follows them. A name's ending is never asked: it lies too often.
"""

from __future__ import annotations

from tinyface_core.errors import ErrorClass, PictureError, Stage

_PICTURES: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xd8\xff", "jpeg"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
    (b"II*\0", "tiff"),
    (b"MM\0*", "tiff"),
    (b"II+\0", "tiff"),  # BigTIFF
    (b"MM\0+", "tiff"),
)
_BMP_HEADER_SIZES = frozenset({12, 40, 52, 56, 64, 108, 124})  # "BM" alone also begins English words

_OTHER_PICTURES: tuple[tuple[int, bytes, str], ...] = (
    (8, b"CR\x02", "a camera's raw file (CR2)"),  # before TIFF, whose signature it carries
    (0, b"\0\0\0\x0cjP  \r\n\x87\n", "a JPEG 2000 picture"),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000 picture"),
    (0, b"\xff\x0a", "a JPEG XL picture"),
    (0, b"\0\0\0\x0cJXL ", "a JPEG XL picture"),
    (0, b"II\xbc\x01", "a JPEG XR picture"),
    (0, b"8BPS", "a Photoshop file"),
    (0, b"gimp xcf", "a GIMP file"),
    (0, b"\0\0\x01\0", "an icon"),
    # a Targa without a palette; of a cursor, the number of its pictures stands where a Targa's sixth and seventh 0 are
    *((0, b"\0\0%c\0\0\0\0\0" % kind, "a Targa picture") for kind in (2, 3, 10, 11)),
    (0, b"\0\0\x02\0", "a cursor"),
    (0, b"icns", "an icon (ICNS)"),
    *((0, b"\n%c\x01" % version, "a PCX picture") for version in (0, 2, 3, 4, 5)),
    *((0, b"\x01\xda%c%c" % (packed, depth), "an SGI picture") for packed in (0, 1) for depth in (1, 2)),
    (0, b"/* XPM */", "an XPM picture"),
    (0, b"v/1\x01", "an OpenEXR picture"),
    (0, b"#?RADIANCE", "a Radiance HDR picture"),
    (0, b"#?RGBE", "a Radiance HDR picture"),
    (0, b"DDS ", "a DirectDraw texture"),
    (0, b"qoif", "a QOI picture"),
    (0, b"BPG\xfb", "a BPG picture"),
    (0, b"AT&TFORM", "a DjVu document"),
    (0, b"FUJIFILMCCD-RAW", "a camera's raw file (RAF)"),
    (0, b"IIRO", "a camera's raw file (ORF)"),
    (0, b"IIRS", "a camera's raw file (ORF)"),
    (0, b"MMOR", "a camera's raw file (ORF)"),
    (0, b"IIU\0", "a camera's raw file (RW2)"),
    (0, b"FOVb", "a camera's raw file (X3F)"),
    (128, b"DICM", "a DICOM picture"),
    *((0, b"P%d%c" % (kind, blank), "a PNM picture") for kind in range(1, 8) for blank in b"\n\r\t "),
)
_ARCHIVES: tuple[tuple[int, bytes, str], ...] = (
    (0, b"PK\x03\x04", "zip"),
    (0, b"PK\x05\x06", "zip"),
    (257, b"ustar", "tar"),
    (0, b"\x1f\x8b", "gzip"),
    (0, b"BZh", "bzip2"),
    (0, b"\xfd7zXZ\0", "xz"),
    (0, b"\x28\xb5\x2f\xfd", "zstd"),
    (0, b"7z\xbc\xaf\x27\x1c", "7z"),
    (0, b"Rar!\x1a\x07", "rar"),
)
_NO_PICTURES: tuple[tuple[int, bytes, str], ...] = (
    (0, b"%PDF-", "a PDF document"),
    (0, b"%!PS", "a PostScript document"),
    (0, b"\x1aE\xdf\xa3", "a video (webm or mkv)"),
    (0, b"\0\0\x01\xba", "a video (mpeg)"),
    (0, b"\0\0\x01\xb3", "a video (mpeg)"),
    (0, b"FLV\x01", "a video (flv)"),
    (0, b"0&\xb2u\x8ef\xcf\x11", "a video (wmv)"),
    (8, b"AVI ", "a video (avi)"),
    (8, b"WAVE", "a sound file (wav)"),
    (0, b"OggS", "a sound or video file (ogg)"),
    (0, b"ID3", "a sound file (mp3)"),
    (0, b"fLaC", "a sound file (flac)"),
    (0, b"\x7fELF", "a program (ELF)"),
    (0, b"MZ", "a program (Windows)"),
    (0, b"PAR1", "a Parquet file"),
    (0, b"ARROW1", "an Arrow file"),
    (0, b"\x93NUMPY", "a numpy array"),
    (0, b"SQLite format 3\0", "an SQLite database"),
    (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Office document"),
    (0, b"version https://git-lfs", "a Git LFS pointer: the file itself was never fetched"),
)
_HEIC_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"})
_STILL_BRANDS = frozenset({b"mif1", b"mif2", b"msf1"})  # "a still picture, coded somehow": other brands say how


def format_of(data: bytes) -> str | PictureError:
    """The format of an encoded picture: jpeg, png, webp, tiff, bmp, gif, heic or avif; else why it is none.

    Errors: `truncated` (0 bytes, or a cut signature), `unsupported` (other picture formats, archives),
    `not_an_image` (everything else). Only the first 4 KiB are looked at.
    """
    if not data:
        return _error(ErrorClass.TRUNCATED, "the file is empty (0 bytes)")
    head = data[:4096]
    if other := _match(_OTHER_PICTURES, head):
        return _error(ErrorClass.UNSUPPORTED, f"this is {other}, a format that is not decoded here")
    for signature, name in _PICTURES:
        if head.startswith(signature):
            return name
        if len(head) < len(signature) and signature.startswith(head):
            return _error(ErrorClass.TRUNCATED, f"the file ends after {len(head)} bytes, within its signature")
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BMP_HEADER_SIZES:
        return "bmp"
    if head[4:8] == b"ftyp":
        return _by_brand(head)
    if archive := _match(_ARCHIVES, head):
        return _error(
            ErrorClass.UNSUPPORTED,
            f"an archive ({archive}), not looked into here: unpack it; tar, tar.gz and zip can be inputs",
        )
    return _error(*_no_picture(head))


def _match(table: tuple[tuple[int, bytes, str], ...], head: bytes) -> str | None:
    for offset, signature, name in table:
        if head.startswith(signature, offset):
            return name
    return None


def _by_brand(head: bytes) -> str | PictureError:
    """ISO base media files share one signature; the brands (ISO 14496-12, box `ftyp`) tell them apart."""
    size = int.from_bytes(head[:4], "big")
    if len(head) < min(size, 4096):
        return _error(ErrorClass.TRUNCATED, f"the file ends after {len(head)} bytes, within its first box")
    brands = [head[8:12]] + [head[at : at + 4] for at in range(16, min(size, len(head)), 4)]
    if brands[0] == b"crx ":
        return _error(ErrorClass.UNSUPPORTED, "this is a camera's raw file (CR3), a format that is not decoded here")
    if brands[0] not in _HEIC_BRANDS | _STILL_BRANDS | {b"avif", b"avis"}:
        brand = brands[0].decode("latin-1").strip()
        return _error(ErrorClass.NOT_AN_IMAGE, f"this is a video or sound file (mp4 family, brand {brand!r})")
    if b"avif" in brands or b"avis" in brands:
        return "avif"
    if _HEIC_BRANDS & set(brands):
        return "heic"
    return _error(ErrorClass.UNSUPPORTED, "this is a HEIF file whose coding is neither HEVC nor AV1")


def _no_picture(head: bytes) -> tuple[ErrorClass, str]:
    if known := _match(_NO_PICTURES, head):
        return ErrorClass.NOT_AN_IMAGE, f"this is {known}"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<svg", b"<?xml")) and b"<svg" in text:
        return ErrorClass.UNSUPPORTED, "this is an SVG drawing, a format that is not decoded here"
    if text.startswith(b"#define ") and b"_width " in text and b"_bits[]" in text:
        return ErrorClass.UNSUPPORTED, "this is an XBM picture, a format that is not decoded here"
    if text.startswith((b"<!doctype html", b"<html")):
        return ErrorClass.NOT_AN_IMAGE, "this is a web page: a download may have stored an error page"
    if b"\0" not in head and _is_text(head):
        return ErrorClass.NOT_AN_IMAGE, "this is a text file"
    return ErrorClass.NOT_AN_IMAGE, f"no known picture format begins with the bytes {head[:8].hex(' ')}"


def _is_text(head: bytes) -> bool:
    decoded = head.decode("utf-8", "replace")
    odd = sum(1 for letter in decoded if letter == "\ufffd" or (letter < " " and letter not in "\t\r\n\f"))
    return odd <= 1  # the cut at 4 KiB may halve one letter


def _error(error_class: ErrorClass, message: str) -> PictureError:
    return PictureError(Stage.DECODE, error_class, message)
