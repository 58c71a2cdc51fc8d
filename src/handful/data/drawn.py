"""Draws pictures of a product, for a demo where no real pictures are at hand: a machined cover with screws and a seal.

Nothing is loaded: surfaces are heights, which a light from the upper left shades. Every number in this file was chosen
by looking at the pictures. What an inspector does on them says nothing about real parts.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SIDE = 512  # pixels of a drawn picture
DEFECTS = ("scratch", "dent", "stain", "missing screw", "torn seal", "chipped edge")

Field = NDArray[np.float64]  # (SIDE, SIDE), a value for each pixel

_HALF, _CORNER = 176.0, 34.0  # the plate: half of its side, and the radius of its corners
_SCREWS = [(x * 128.0, y * 128.0) for y in (-1, 1) for x in (-1, 1)]  # the centres, from the plate's centre
_SCREW, _BORE, _RING, _SEAL, _SEAL_WIDTH = 19.0, 44.0, 92.0, 111.0, 7.0  # radii, and half of the seal's width
_ZOOM = 1.25  # pixels of the picture to each unit of these lengths
_AROUND = 36  # pixels from a screw's centre to the edges of the window that is drawn for it


@dataclass(frozen=True, eq=False)
class _Surface:
    """A scene before it is lit.

    Attributes:
        height: in pixels, towards the camera.
        colour: (SIDE, SIDE, 3), the share of light that is thrown back.
        shine: the share of light that is mirrored.
    """

    height: Field
    colour: NDArray[np.float64]
    shine: Field


def parts(good: int, defective: int, *, seed: int) -> list[tuple[str, int, str | None]]:
    """Good parts, then defective parts of each kind in turn: a name, and seed and defect as `part` takes them."""
    listed: list[tuple[str, int, str | None]] = [(f"good/{n:03d}.png", seed + n, None) for n in range(good)]
    for number in range(defective):
        kind = DEFECTS[number % len(DEFECTS)]
        listed.append((f"defective/{number:03d}_{kind.replace(' ', '_')}.png", seed + good + number, kind))
    return listed


def part(seed: int, defect: str | None = None) -> NDArray[np.uint8]:
    """A picture of a part: (SIDE, SIDE, 3) RGB.

    Args:
        seed: parts of different seeds differ in texture, place, angle, light and the angles of their screws.
        defect: a word of `DEFECTS`; None for a good part.
    """
    assert defect is None or defect in DEFECTS, defect
    random, flaw = np.random.default_rng([seed, 0]), np.random.default_rng([seed, 1])
    x, y = _coordinates(random)
    surface = _scene(random, x, y, missing=int(flaw.integers(4)) if defect == "missing screw" else None)
    if defect in _FLAWS:
        _FLAWS[str(defect)](flaw, x, y, surface)
    lit = _lit(surface, angle=random.normal(0, 0.06), strength=random.normal(1, 0.025))
    grain = random.normal(0, 1.6, lit.shape)
    return np.clip(lit * 255 + grain, 0, 255).astype(np.uint8)


def _coordinates(random: np.random.Generator) -> tuple[Field, Field]:
    """The pixels' places in the part's own frame, which lies a little displaced and turned."""
    rows, columns = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    turn, (right, down) = np.deg2rad(random.normal(0, 0.7)), random.normal(0, 2.0, 2)
    x, y = (columns - right) / _ZOOM, (rows - down) / _ZOOM
    return x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)


def _scene(random: np.random.Generator, x: Field, y: Field, *, missing: int | None) -> _Surface:
    """The good part on its belt; `missing` is the number of a screw that is not there."""
    radius = np.hypot(x, y)
    outside = _rounded_square(x, y, _HALF, _CORNER)
    plate, ring, bore = _inside(-outside), _inside(_RING - radius), _inside(_BORE - radius)

    weave = np.sin(x * 1.3) * np.sin(y * 1.3) * 0.5 + _noise(random, 1.0, 1.0) * 0.5
    height = 0.35 * weave + 12 * _ramp(-outside, 9.0)
    height += 0.07 * plate * (1 - ring) * _noise(random, 26.0, 0.6)  # brushed from left to right
    height += ring * (7 * _ramp(_RING - radius, 6.0) + 0.13 * _rings(random, radius))
    height -= 26 * _ramp(_BORE - radius, 7.0)

    colour = np.empty((SIDE, SIDE, 3))
    colour[:] = (0.075, 0.085, 0.105)
    colour *= (1 + 0.25 * weave)[:, :, None]
    shine = np.full((SIDE, SIDE), 0.05)
    metal = np.array([0.55, 0.56, 0.58])
    streaks = 1 + 0.045 * _noise(random, 40.0, 0.7) * (1 - ring) + 0.02 * _noise(random, 6.0, 6.0)
    _paint(colour, plate, metal * streaks[:, :, None])
    _paint(colour, ring * (1 - bore), np.array([0.63, 0.62, 0.60]) * (1 + 0.03 * _rings(random, radius))[:, :, None])
    shine += 0.5 * plate
    _paint(colour, bore, np.array([0.05, 0.05, 0.06]))
    shine *= 1 - 0.9 * bore

    groove = _inside(_SEAL_WIDTH + 2.5 - abs(radius - _SEAL))
    height -= 3.0 * _ramp(_SEAL_WIDTH + 2.5 - abs(radius - _SEAL), 3.0)
    _paint(colour, groove, np.array([0.16, 0.16, 0.17]))
    across = np.clip(1 - ((radius - _SEAL) / _SEAL_WIDTH) ** 2, 0, None)
    seal = _inside(_SEAL_WIDTH - abs(radius - _SEAL))
    height += 9 * np.sqrt(across)
    _paint(colour, seal, np.array([0.80, 0.24, 0.07]) * (1 + 0.05 * _noise(random, 2.0, 2.0))[:, :, None])
    shine = shine * (1 - seal) + 0.35 * seal

    for number, (right, down) in enumerate(_SCREWS):
        angle = random.uniform(0, np.pi / 3)
        middle = np.unravel_index(np.argmin(np.hypot(x - right, y - down)), x.shape)
        near = tuple(
            slice(int(place) - _AROUND, int(place) + _AROUND) for place in middle
        )  # else it takes as long as all
        part = _Surface(height[near], colour[near], shine[near])
        _screw(part, x[near] - right, y[near] - down, angle, there=number != missing)
    return _Surface(height, colour, shine)


def _screw(surface: _Surface, x: Field, y: Field, angle: float, *, there: bool) -> None:
    """A screw with a socket of six sides in its hole, or the empty hole."""
    radius = np.hypot(x, y)
    hole, head = _inside(_SCREW + 4 - radius), _inside(_SCREW - radius)
    surface.height[:] -= 6 * _ramp(_SCREW + 4 - radius, 4.0)
    _paint(surface.colour, hole, np.array([0.20, 0.20, 0.21]))
    if not there:
        floor, depth = _inside(_SCREW + 1 - radius), _inside(9.0 - radius)
        _paint(surface.colour, floor, np.array([0.5, 0.5, 0.51]))
        surface.height[:] -= 14 * _ramp(9.0 - radius, 3.0)
        _paint(surface.colour, depth, np.array([0.03, 0.03, 0.035]))
        surface.shine[:] *= 1 - depth
        return
    surface.height[:] += 9 * _ramp(_SCREW - radius, 4.0)
    _paint(surface.colour, head, np.array([0.30, 0.31, 0.33]))
    sides = [x * np.cos(angle + k * np.pi / 3) + y * np.sin(angle + k * np.pi / 3) for k in range(6)]
    socket = 9.0 - np.max(sides, axis=0)
    surface.height[:] -= 8 * _ramp(socket, 2.5)
    _paint(surface.colour, _inside(socket), np.array([0.05, 0.05, 0.055]))


def _lit(surface: _Surface, *, angle: float, strength: float) -> NDArray[np.float64]:
    """The picture of a surface, 0 to 1, by a light from the upper left and one from all around."""
    down, right = np.gradient(_ZOOM * surface.height)
    length = np.sqrt(right**2 + down**2 + 1)
    towards = np.array([-np.cos(0.9 + angle) * 0.62, -np.sin(0.9 + angle) * 0.62, 0.78])
    facing = np.clip((-right * towards[0] - down * towards[1] + towards[2]) / length, 0, None)
    middle = towards + np.array([0, 0, 1.0])
    middle /= np.linalg.norm(middle)
    mirrored = np.clip((-right * middle[0] - down * middle[1] + middle[2]) / length, 0, None) ** 22
    rows, columns = np.mgrid[:SIDE, :SIDE] / SIDE - 0.5
    falling_off = strength * (1.06 - 0.22 * columns - 0.18 * rows - 0.35 * (rows**2 + columns**2))
    shadow = _shadow(surface.height)
    light = falling_off * (0.38 + 0.85 * facing * shadow)
    lit: NDArray[np.float64] = surface.colour * light[:, :, None]
    lit += (falling_off * surface.shine * mirrored * shadow * 0.55)[:, :, None]
    return np.clip(lit, 0, None) ** 0.8


def _shadow(height: Field) -> Field:
    """The share of the light that high places leave to lower places on their right and below them."""
    above = np.zeros_like(height)
    for step in range(2, 16, 2):
        shifted = np.roll(height, (step, step), axis=(0, 1)) - step * 0.9
        above = np.maximum(above, np.clip(shifted - height, 0, 6))
    return 1 - 0.6 * _blurred(above / 6, 1.2, 1.2)


def _scratch(random: np.random.Generator, x: Field, y: Field, surface: _Surface) -> None:
    angle, length = random.uniform(0.7, 1.4) * random.choice([-1, 1]), random.uniform(30, 50)
    centre = random.choice([-1, 1]) * 140, random.uniform(-60, 60)
    along = (x - centre[0]) * np.cos(angle) + (y - centre[1]) * np.sin(angle)
    across = (y - centre[1]) * np.cos(angle) - (x - centre[0]) * np.sin(angle) - 0.0025 * along**2
    line = np.exp(-((across / 1.8) ** 2)) * _inside((length - abs(along)) / 4)
    line *= _inside(-_rounded_square(x, y, _HALF, _CORNER) - 8)
    surface.height[:] -= 2.2 * line
    _paint(surface.colour, 0.75 * line, np.array([0.86, 0.87, 0.9]))


def _dent(random: np.random.Generator, x: Field, y: Field, surface: _Surface) -> None:
    right, down = random.uniform(-75, 75), random.choice([-1, 1]) * 145
    far = ((x - right) / random.uniform(9, 13)) ** 2 + ((y - down) / random.uniform(7, 10)) ** 2
    surface.height[:] -= 7 * np.exp(-far)


def _stain(random: np.random.Generator, x: Field, y: Field, surface: _Surface) -> None:
    angle = random.uniform(0, 2 * np.pi)
    right, down = 135 * np.cos(angle), 70 * np.sin(angle)
    wavy = 14 + 5 * _noise(random, 9.0, 9.0)
    blot = 0.75 * _inside((wavy - np.hypot((x - right) * 0.8, y - down)) / 3)
    _paint(surface.colour, blot, np.array([0.20, 0.13, 0.07]))
    surface.shine[:] *= 1 - 0.5 * blot


def _torn_seal(random: np.random.Generator, x: Field, y: Field, surface: _Surface) -> None:
    away = np.angle(np.exp(1j * (np.arctan2(y, x) - random.uniform(-np.pi, np.pi))))
    ragged = random.uniform(0.09, 0.14) + 0.02 * _noise(random, 2.0, 2.0)
    radius = np.hypot(x, y)
    gap = _inside((ragged - abs(away)) * _SEAL / 1.5) * _inside(_SEAL_WIDTH + 1 - abs(radius - _SEAL))
    surface.height[:] -= gap * 9 * np.sqrt(np.clip(1 - ((radius - _SEAL) / _SEAL_WIDTH) ** 2, 0, None))
    _paint(surface.colour, gap, np.array([0.15, 0.15, 0.16]))
    surface.shine[:] *= 1 - 0.8 * gap


def _chipped_edge(random: np.random.Generator, x: Field, y: Field, surface: _Surface) -> None:
    along, side = random.uniform(-85, 85), random.integers(4)
    right, down = [(along, -_HALF), (along, _HALF), (-_HALF, along), (_HALF, along)][side]
    ragged = random.uniform(13, 18) + 3 * _noise(random, 3.0, 3.0)
    bite = ragged - np.hypot(x - right, y - down)
    surface.height[:] *= 1 - _ramp(bite, 6.0)
    _paint(surface.colour, _inside(bite / 1.5), np.array([0.10, 0.11, 0.125]))
    surface.shine[:] *= 1 - 0.8 * _inside(bite)


_FLAWS = {
    "scratch": _scratch,
    "dent": _dent,
    "stain": _stain,
    "torn seal": _torn_seal,
    "chipped edge": _chipped_edge,
}


def _rounded_square(x: Field, y: Field, half: float, corner: float) -> Field:
    """The distance to a square's outline, negative inside."""
    right, down = abs(x) - half + corner, abs(y) - half + corner
    outer = np.hypot(np.clip(right, 0, None), np.clip(down, 0, None))
    return outer + np.minimum(np.maximum(right, down), 0) - corner


def _inside(depth: Field) -> Field:
    """1 where a depth inside an outline is positive, 0 outside, with an edge of a pixel."""
    return np.clip(depth + 0.5, 0, 1)


def _ramp(depth: Field, width: float) -> Field:
    """From 0 at an outline to 1 at `width` inside it, without a kink."""
    part = np.clip(depth / width, 0, 1)
    return part * part * (3 - 2 * part)


def _paint(colour: NDArray[np.float64], share: Field, paint: NDArray[np.float64]) -> None:
    colour += share[:, :, None] * (paint - colour)


def _noise(random: np.random.Generator, wide: float, high: float) -> Field:
    """Noise of mean 0 and deviation 1, blurred by so many pixels."""
    blurred = _blurred(random.normal(size=(SIDE, SIDE)), wide, high)
    noise: Field = blurred / blurred.std()
    return noise


def _blurred(values: Field, wide: float, high: float) -> Field:
    """A Gaussian blur by deviations in pixels, the picture's edges joined."""
    rows, columns = np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE)[None, :]
    kept = np.exp(-2 * np.pi**2 * ((columns * wide) ** 2 + (rows * high) ** 2))
    blurred: Field = np.fft.irfft2(np.fft.rfft2(values) * kept, s=values.shape)
    return blurred


def _rings(random: np.random.Generator, radius: Field) -> Field:
    """Traces of turning: noise that depends on the radius alone, with a deviation of 1."""
    profile = random.normal(size=2 * SIDE)
    profile = np.convolve(profile, [0.25, 0.5, 0.25], mode="same")
    found = np.interp(radius * 1.2, np.arange(2 * SIDE), profile)
    traces: Field = found / found.std()
    return traces
