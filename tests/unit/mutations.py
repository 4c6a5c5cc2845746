"""Hypothesis strategies that damage archives and pictures where their formats say what is what.

Random bytes alone mostly break a check sum, and then no reader looks further. So numbers are replaced where numbers
stand, whole pieces are moved, doubled and left out, and sums are made right again. Examples are small: they show by
themselves what went wrong.
"""

from __future__ import annotations

import gzip
import re
import struct
import tarfile
import zlib
from collections.abc import Iterator

from hypothesis import strategies as st

BLOCK = tarfile.BLOCKSIZE

NUMBERS = [0, 1, 2, 3, 7, 8, 127, 128, 255, 256, 511, 512, 1000, 0x7FFF, 0xFFFF, 65_500, 1 << 20, 0x7FFFFFFF]
NUMBERS += [0x80000000, 0xFFFFFFFF, 1 << 40, (1 << 63) - 1, 1 << 63, (1 << 64) - 1]


_ANY_NUMBER = st.one_of(st.sampled_from(NUMBERS), st.integers(0, 2000), st.integers(0, (1 << 64) - 1))


def numbers() -> st.SearchStrategy[int]:
    return _ANY_NUMBER


@st.composite
def packed_numbers(draw: st.DrawFn, sizes: tuple[int, ...] = (1, 2, 4, 8)) -> bytes:
    """A number as files hold it, little or big end first."""
    size = draw(st.sampled_from(sizes))
    return (draw(numbers()) & ((1 << 8 * size) - 1)).to_bytes(size, draw(st.sampled_from(["little", "big"])))


@st.composite
def damaged(draw: st.DrawFn, sound: bytes, head: int = 600) -> bytes:
    """One to four changes: numbers set, bits flipped, pieces doubled, moved or left out, a cut, a foreign tail.

    head: half of the changes fall into that many first bytes, where headers stand.
    """
    data = bytearray(sound)
    for _ in range(draw(st.integers(1, 4))):
        end = min(head, len(data)) if draw(st.booleans()) else len(data)
        at = draw(st.integers(0, max(end - 1, 0)))
        match draw(st.integers(0, 6)):
            case 0 | 1:
                number = draw(packed_numbers())
                data[at : at + len(number)] = number
            case 2:
                data[at : at + 1] = bytes([(data[at] if at < len(data) else 0) ^ 1 << draw(st.integers(0, 7))])
            case 3:
                size = draw(st.sampled_from([1, 2, 4, 8, 12, 100, 512, 1000]))
                piece = bytes(data[at : at + size])
                if draw(st.booleans()):
                    del data[at : at + size]
                else:
                    to = draw(st.integers(0, len(data)))
                    data[to:to] = piece * draw(st.sampled_from([1, 1, 2, 40]))
            case 4:
                data[at:at] = draw(st.binary(max_size=24))
            case 5:
                del data[at:]
            case _:
                data += draw(st.binary(max_size=40))
    return bytes(data)


# --- tar -------------------------------------------------------------------------------------------------------------

_TAR_FIELDS = [(0, 100), (100, 8), (108, 8), (116, 8), (124, 12), (136, 12), (156, 1), (157, 100), (257, 8), (345, 155)]
_TAR_FIELDS += [(386, 12), (398, 12), (482, 1), (483, 12)]  # of a sparse file
_TAR_TYPES = [b"0", b"\0", b"1", b"2", b"3", b"5", b"6", b"7", b"S", b"L", b"K", b"x", b"g", b"X", b"V", b"N", b"\xff"]


def with_sum(header: bytes) -> bytes:
    """The header of a tar with its check sum made right."""
    block = bytearray(header.ljust(BLOCK, b"\0"))
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


@st.composite
def tar_numbers(draw: st.DrawFn) -> bytes:
    """Sizes as a tar's header holds them: octal, base 256 (negative ones too), and what is none."""
    number = draw(numbers())
    kinds = [
        b"%011o\0" % (number & 0x1FFFFFFFF),
        b"\x80" + (number & ((1 << 88) - 1)).to_bytes(11, "big"),
        b"\x80" + (((1 << 88) - 1) ^ number).to_bytes(11, "big"),
        b"\xff" + (((1 << 88) - 1) ^ number).to_bytes(11, "big"),
        b"%12d" % number,
        draw(st.binary(min_size=12, max_size=12)),
    ]
    return draw(st.sampled_from(kinds))


@st.composite
def pax_records(draw: st.DrawFn) -> bytes:
    keys = [b"path", b"size", b"linkpath", b"mtime", b"uid", b"hdrcharset", b"comment", b"GNU.sparse.map", b"\xff\xfe"]
    keys += [b"GNU.sparse." + word for word in (b"major", b"minor", b"name", b"size", b"realsize", b"offset")]
    texts = [b"", b"1", b"0", b"-1", b"1,2,3", b"a/b.jpg", b"a.jpg/", b"\xff.jpg", b"BINARY", b"1e999", b"9" * 400]
    found = b""
    for _ in range(draw(st.integers(0, 4))):
        value = draw(st.one_of(st.sampled_from(texts), numbers().map(lambda n: b"%d" % n)))
        record = b" " + draw(st.sampled_from(keys)) + b"=" + value + b"\n"
        length = len(record) + len(str(len(record)))
        length += len(str(length)) > len(str(len(record)))
        if draw(st.integers(0, 9)) == 0:
            length = draw(st.sampled_from([0, 1, length - 1, length + 1, 1 << 30]))
        found += b"%d" % length + record
    return found


@st.composite
def tar_extras(draw: st.DrawFn) -> bytes:
    """Headers before a header, as long names and pax have them, one or a chain; and maps of sparse files."""
    found = b""
    for _ in range(draw(st.sampled_from([1, 1, 2, 3, 30]))):
        info = tarfile.TarInfo("././@LongLink")
        info.type = draw(st.sampled_from([b"L", b"K", b"x", b"g", b"X", b"S"]))
        content = draw(pax_records() if info.type in b"xgX" else st.binary(max_size=30))
        info.size = len(content)
        header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
        if info.type == b"S":
            header[386:410] = b"00000000001\0" * 2
            header[482] = draw(st.integers(0, 1))
        if draw(st.integers(0, 5)) == 0:
            header[124:136] = draw(tar_numbers())
        found += with_sum(bytes(header)) + content.ljust(-(-len(content) // BLOCK) * BLOCK, b"\0")
    return found


@st.composite
def damaged_tars(draw: st.DrawFn, sound: bytes) -> bytes:
    """Block by block: fields of headers set and their sums made right, blocks doubled, moved, left out, put in."""
    blocks = [sound[at : at + BLOCK] for at in range(0, len(sound), BLOCK)]
    headers = [place for place, block in enumerate(blocks) if block[257:262] == b"ustar"]
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.sampled_from(headers)) % len(blocks)
        match draw(st.integers(0, 5)):
            case 0 | 1:
                start, size = draw(st.sampled_from(_TAR_FIELDS))
                if size == 12:
                    value = draw(tar_numbers())
                else:
                    value = draw(st.sampled_from(_TAR_TYPES) if size == 1 else st.binary(max_size=size))
                changed = blocks[place][:start] + value.ljust(size, b"\0") + blocks[place][start + size :]
                blocks[place] = with_sum(changed) if draw(st.integers(0, 7)) else changed
            case 2:
                blocks.insert(place, draw(tar_extras()))
            case 3:
                blocks.insert(draw(st.integers(0, len(blocks))), blocks[place])
            case 4:
                del blocks[place : place + draw(st.integers(1, 3))]
            case _:
                del blocks[draw(st.integers(1, len(blocks))) :]
        blocks = blocks or [b""]
    data = b"".join(blocks)
    return data[: draw(st.integers(0, len(data)))] if draw(st.integers(0, 9)) == 0 else data


@st.composite
def damaged_tgzs(draw: st.DrawFn, sound: bytes) -> bytes:
    """A damaged tar packed well, or one that is damaged as gzip, too."""
    packed = gzip.compress(draw(damaged_tars(sound)), 1, mtime=0)
    return packed if draw(st.booleans()) else draw(damaged(packed, head=12))


# --- zip -------------------------------------------------------------------------------------------------------------

_ZIP_FIELDS = {
    b"PK\x03\x04": [(4, 2), (6, 2), (8, 2), (14, 4), (18, 4), (22, 4), (26, 2), (28, 2)],
    b"PK\x01\x02": [(6, 2), (8, 2), (10, 2), (16, 4), (20, 4), (24, 4), (28, 2), (30, 2), (32, 2), (38, 4), (42, 4)],
    b"PK\x05\x06": [(4, 2), (8, 2), (10, 2), (12, 4), (16, 4), (20, 2)],
    b"PK\x06\x06": [(4, 8), (24, 8), (32, 8), (40, 8), (48, 8)],
    b"PK\x06\x07": [(8, 8), (16, 4)],
}


def _zip_entries(data: bytes) -> Iterator[tuple[int, int]]:
    """(start, stop) of each entry of the directory."""
    for found in re.finditer(rb"PK\x01\x02", data):
        if found.start() + 46 <= len(data):
            yield found.start(), found.start() + 46 + sum(struct.unpack_from("<HHH", data, found.start() + 28))


def _with_end(data: bytearray, shift: int) -> None:
    """The end of the zip told anew after its directory grew by `shift` bytes."""
    at = data.rfind(b"PK\x05\x06")
    if at >= 0 and at + 16 <= len(data):
        struct.pack_into("<L", data, at + 12, (struct.unpack_from("<L", data, at + 12)[0] + shift) & 0xFFFFFFFF)


@st.composite
def damaged_zips(draw: st.DrawFn, sound: bytes) -> bytes:
    """Fields of local headers, directory and end set; entries doubled, left out, given a zip64 field; then a cut."""
    data = bytearray(sound)
    for _ in range(draw(st.integers(1, 3))):
        entries = list(_zip_entries(bytes(data)))
        choice = draw(st.integers(0, 4)) if entries else 0
        if choice < 3:
            places = [(found.start(), found[0]) for found in re.finditer(rb"PK[\x01-\x06]{2}", bytes(data))]
            places = [place for place in places if place[1] in _ZIP_FIELDS]
            if places:
                start, signature = draw(st.sampled_from(places))
                offset, size = draw(st.sampled_from(_ZIP_FIELDS[signature]))
                number = draw(numbers()) & ((1 << 8 * size) - 1)
                data[start + offset : start + offset + size] = number.to_bytes(size, "little")
            continue
        start, stop = draw(st.sampled_from(entries))
        if choice == 3:
            entry = bytes(data[start:stop])
            times = draw(st.sampled_from([0, 2, 3, 50]))
            data[start:stop] = entry * times
            _with_end(data, len(entry) * (times - 1))
        else:
            extra = struct.pack("<HH", 1, 24) + b"".join(
                n.to_bytes(8, "little") for n in draw(st.tuples(*[numbers()] * 3))
            )
            extra = extra[: draw(st.sampled_from([28, 28, 20, 12, 3]))]
            name = struct.unpack_from("<H", data, start + 28)[0]
            told = struct.unpack_from("<H", data, start + 30)[0]
            struct.pack_into("<H", data, start + 30, (told + len(extra)) & 0xFFFF)
            for field in draw(st.sets(st.sampled_from([20, 24, 42]))):
                struct.pack_into("<L", data, start + field, 0xFFFFFFFF)
            data[start + 46 + name : start + 46 + name] = extra
            _with_end(data, len(extra))
    found = bytes(data)
    return draw(damaged(found, head=40)) if draw(st.integers(0, 5)) == 0 else found


# --- Parquet ---------------------------------------------------------------------------------------------------------


def varint(number: int) -> bytes:
    """As Thrift's compact protocol holds numbers (zigzag is the reader's affair)."""
    found = bytearray()
    while number >= 0x80:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*found, number])


@st.composite
def damaged_parquets(draw: st.DrawFn, sound: bytes) -> bytes:
    """Numbers and types in the footer or in the headers of pages; the footer's length told anew."""
    (size,) = struct.unpack_from("<I", sound, len(sound) - 8)
    body, footer = bytearray(sound[: -8 - size]), bytearray(sound[-8 - size : -8])
    for _ in range(draw(st.integers(1, 3))):
        part = footer if draw(st.integers(0, 2)) else body
        at = draw(st.integers(0, max(len(part) - 1, 0)))
        match draw(st.integers(0, 3)):
            case 0:
                part[at : at + 1] = varint(draw(numbers()))
            case 1:
                part[at : at + 1] = bytes([draw(st.integers(0, 255))])
            case 2:
                del part[at : at + draw(st.integers(1, 4))]
            case _:
                part[at:at] = bytes(part[at : at + draw(st.integers(1, 60))])
    told = len(footer) if draw(st.integers(0, 9)) else draw(numbers()) & 0xFFFFFFFF
    return bytes(body + footer) + struct.pack("<I", told) + b"PAR1"


# --- pictures --------------------------------------------------------------------------------------------------------


def with_png_sums(data: bytes) -> bytes:
    """A PNG whose chunks have the sums that their content asks for, as far as its lengths lead."""
    fixed, at = bytearray(data), 8
    while at + 12 <= len(fixed):
        (length,) = struct.unpack_from(">I", fixed, at)
        if at + 12 + length > len(fixed):
            break
        struct.pack_into(">I", fixed, at + 8 + length, zlib.crc32(fixed[at + 4 : at + 8 + length]))
        at += 12 + length
    return bytes(fixed)


@st.composite
def damaged_pictures(draw: st.DrawFn, files: dict[str, bytes]) -> tuple[str, bytes]:
    """(name, bytes) of a real picture, damaged; now and then with the rest of another one."""
    name = draw(st.sampled_from(sorted(files)))
    data = draw(damaged(files[name]))
    if draw(st.integers(0, 9)) == 0:
        other = files[draw(st.sampled_from(sorted(files)))]
        data = data[: draw(st.integers(0, len(data)))] + other[draw(st.integers(0, len(other))) :]
    if name.startswith("png") and draw(st.booleans()):
        data = with_png_sums(data)
    return name, data
