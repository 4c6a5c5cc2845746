"""What is written under a picture, and in the place of one: the colour bar of the confidence, facts, errors.

Text is set in DejaVu Sans, which matplotlib brings: it has the letters of most names. Knows text and pixels.
"""

from __future__ import annotations

import textwrap
from functools import cache
from pathlib import Path

import matplotlib as mpl
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from tinyface_core.render.drawn import RGB
from tinyface_core.report.draw import colours_of
from tinyface_core.report.text import shown

_PAPER, _INK, _SOFT, _BAD = (21, 21, 20), (233, 231, 226), (160, 158, 149), (255, 138, 128)
_TILE_WH = (640, 360)
_LEAST_WIDTH_PX = 460  # bar and facts need so much


def with_legend(rgb_HW3: RGB, below_HW3: RGB | None, facts: str) -> RGB:
    """The picture, what stands below it, and under both the colour bar with the facts, on one dark sheet.

    Letters grow with the picture. No pixel of it is covered.
    """
    scale = float(np.clip(rgb_HW3.shape[1] / 1000, 1, 6))
    parts = [rgb_HW3] if below_HW3 is None else [rgb_HW3, below_HW3]
    width = max(_LEAST_WIDTH_PX, *(part.shape[1] for part in parts))
    parts.append(_legend(width, facts, scale))
    gap = np.full((4, width, 3), _PAPER, np.uint8)
    rows = [row for part in parts for row in (_widened(part, width), gap)]
    return np.concatenate(rows[:-1])


def error_tile(error_class: str, sentence: str, path: str) -> RGB:
    """A sheet in the place of a picture that there is not."""
    sheet = Image.new("RGB", _TILE_WH, _PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((24, 22), shown(error_class), _BAD, _font(26))
    lines = [(line, _INK) for line in textwrap.wrap(shown(sentence), 58)[:7]]
    lines += [("", _INK), *((line, _SOFT) for line in textwrap.wrap(shown(path), 58)[:4])]
    for place, (line, colour) in enumerate(lines):
        draw.text((24, 72 + 23 * place), line, colour, _font(16))
    return np.asarray(sheet)


def _legend(width: int, facts: str, scale: float) -> RGB:
    sheet = Image.new("RGB", (width, round(26 * scale)), _PAPER)
    draw = ImageDraw.Draw(sheet)
    font, middle = _font(round(13 * scale)), round(13 * scale)
    left, length, height = round(26 * scale), round(120 * scale), round(9 * scale)
    bar_HW3 = np.broadcast_to(colours_of(np.linspace(0, 1, length))[None], (height, length, 3))
    sheet.paste(Image.fromarray(np.ascontiguousarray(bar_HW3)), (left, middle - height // 2))
    draw.text((round(8 * scale), middle), "0", _SOFT, font, anchor="lm")
    draw.text((left + length + round(8 * scale), middle), "1 confidence", _SOFT, font, anchor="lm")
    draw.text((width - round(8 * scale), middle), facts, _INK, font, anchor="rm")
    return np.asarray(sheet)


def _widened(rgb_HW3: RGB, width: int) -> RGB:
    out_HW3 = np.full((rgb_HW3.shape[0], width, 3), _PAPER, np.uint8)
    out_HW3[:, : rgb_HW3.shape[1]] = rgb_HW3
    return out_HW3


@cache
def _font(size_px: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size_px)
