"""``kyvo.world.render.geometry`` once more, for Triton kernels.

A function here has the name of its counterpart, whose docstring says more. A vector is a tuple of
three blocks, one number for each ray, or of three scalars. No function gives NaN for finite rays:
comparing NaN, and taking its minimum, mean different things on a GPU and in PyTorch. Constants
follow tensors: Triton's interpreter takes a constant times a tensor for a constant.
"""

import triton
import triton.language as tl

from kyvo.world import constants
from kyvo.world.render import geometry

FAR = tl.constexpr(geometry.FAR)

CUBE = tl.constexpr(constants.SHAPES.index("cube"))
SPHERE = tl.constexpr(constants.SHAPES.index("sphere"))
CYLINDER = tl.constexpr(constants.SHAPES.index("cylinder"))

_CUBE_CORE = tl.constexpr(constants.CORES["cube"])
_CYLINDER_CORE = tl.constexpr(constants.CORES["cylinder"])
_EDGE_STEPS = tl.constexpr(geometry.EDGE_STEPS)
_EDGE_SLACK = tl.constexpr(geometry.EDGE_SLACK)

_AXIS_X = tl.constexpr(constants.BACKDROP_AXIS[0])
_AXIS_Y = tl.constexpr(constants.BACKDROP_AXIS[1])
_OFFSET = tl.constexpr(constants.BACKDROP_OFFSET)
_HEIGHT = tl.constexpr(constants.BACKDROP_HEIGHT)
_GROWTH = tl.constexpr(constants.BACKDROP_GROWTH)
_WALL = tl.constexpr(constants.BACKDROP_WALL)
_NEWTON_STEPS = tl.constexpr(geometry.NEWTON_STEPS)
_NEWTON_START = tl.constexpr(geometry.NEWTON_START)


@triton.jit
def any_lane(mask):
    """Return whether the mask holds for any ray of the block: a scalar to branch on."""
    return tl.max(mask.to(tl.int32), 0) > 0


@triton.jit
def load_vector(address):
    """Load three numbers that are side by side."""
    return tl.load(address), tl.load(address + 1), tl.load(address + 2)


@triton.jit
def dot(first, second):
    """Return the inner product."""
    return first[0] * second[0] + first[1] * second[1] + first[2] * second[2]


@triton.jit
def add(first, second):
    """Return the sum of two vectors."""
    return first[0] + second[0], first[1] + second[1], first[2] + second[2]


@triton.jit
def subtract(first, second):
    """Return the difference of two vectors."""
    return first[0] - second[0], first[1] - second[1], first[2] - second[2]


@triton.jit
def multiply(first, second):
    """Return the products of two vectors, number by number."""
    return first[0] * second[0], first[1] * second[1], first[2] * second[2]


@triton.jit
def scale(factor, vector):
    """Return a multiple of a vector."""
    return vector[0] * factor, vector[1] * factor, vector[2] * factor


@triton.jit
def select(mask, first, second):
    """Return the first vector where the mask holds, the second elsewhere."""
    return (
        tl.where(mask, first[0], second[0]),
        tl.where(mask, first[1], second[1]),
        tl.where(mask, first[2], second[2]),
    )


@triton.jit
def clamp_max(vector, limit):
    """Return a vector whose numbers are cut at a limit."""
    return (
        tl.minimum(vector[0], limit),
        tl.minimum(vector[1], limit),
        tl.minimum(vector[2], limit),
    )


@triton.jit
def axpy(factor, x, y):
    """Return factor * x + y."""
    return add(y, scale(factor, x))


@triton.jit
def ray_at(origin, distance, direction):
    """Return the point at that distance from ``origin``."""
    return axpy(distance, direction, origin)


@triton.jit
def normalize(vector):
    """Return the unit vector; a null vector stays null."""
    return scale(1 / tl.maximum(tl.sqrt(dot(vector, vector)), 1e-12), vector)


@triton.jit
def sphere_span(origin, direction):
    """Return entry and exit of the unit sphere; missed: exit < entry."""
    return _round_span(origin, direction)


@triton.jit
def cylinder_span(origin, direction):
    """Return entry and exit of the unit cylinder; missed: exit < entry."""
    side_in, side_out = _round_span((origin[0], origin[1], 0.0), (direction[0], direction[1], 0.0))
    cap_in, cap_out = _slab_span(origin[2], direction[2])
    entry = _round_entry(CYLINDER, origin, direction, tl.maximum(side_in, cap_in))
    return entry, tl.minimum(side_out, cap_out)


@triton.jit
def cube_span(origin, direction):
    """Return entry and exit of the unit cube; missed: exit < entry."""
    x_in, x_out = _slab_span(origin[0], direction[0])
    y_in, y_out = _slab_span(origin[1], direction[1])
    z_in, z_out = _slab_span(origin[2], direction[2])
    entry = tl.maximum(tl.maximum(x_in, y_in), z_in)
    return (
        _round_entry(CUBE, origin, direction, entry),
        tl.minimum(tl.minimum(x_out, y_out), z_out),
    )


@triton.jit
def cylinder_core(point):
    """Return the nearest point of the cylinder's core."""
    radius = tl.sqrt(point[0] * point[0] + point[1] * point[1])
    shrink = tl.minimum(tl.fdiv(_CYLINDER_CORE, tl.maximum(radius, 1e-6)), 1.0)
    return point[0] * shrink, point[1] * shrink, _clamp(point[2], _CYLINDER_CORE)


@triton.jit
def cube_core(point):
    """Return the nearest point of the cube's core."""
    return (
        _clamp(point[0], _CUBE_CORE),
        _clamp(point[1], _CUBE_CORE),
        _clamp(point[2], _CUBE_CORE),
    )


@triton.jit
def backdrop_distance(origin, direction):
    """Return the distance to the curved ground, FAR where a ray misses it."""
    start_u = _backdrop_coordinate(origin) - _OFFSET
    rate = _backdrop_coordinate(direction)
    z, dz = origin[2], direction[2]
    to_plane = tl.where(dz < -1e-6, -z / tl.minimum(dz, -1e-6), FAR)
    to_wall = tl.where(rate > 1e-6, (-start_u + _NEWTON_START) / tl.maximum(rate, 1e-6), FAR)
    start = tl.minimum(to_plane, to_wall)
    distance = start
    for _ in range(_NEWTON_STEPS):
        height, slope = _backdrop_profile(start_u + distance * rate)
        above = z + distance * dz - height
        fall = tl.minimum(dz - slope * rate, -1e-4)
        distance -= tl.minimum(above, 0.0) / fall
    return tl.where(start < FAR, distance, FAR)


@triton.jit
def backdrop_normal(point):
    """Return the ground's unit normal below or above a point."""
    _, slope = _backdrop_profile(_backdrop_coordinate(point) - _OFFSET)
    return normalize((slope * -_AXIS_X, slope * -_AXIS_Y, tl.full(slope.shape, 1.0, tl.float32)))


@triton.jit
def _backdrop_coordinate(vector):
    return vector[0] * _AXIS_X + vector[1] * _AXIS_Y


@triton.jit
def _backdrop_profile(u):
    u = tl.minimum(u, _WALL - 0.6)
    gap = -u + _WALL
    height = tl.exp(u * _GROWTH) * (_HEIGHT * _WALL) / gap
    return height, height * (1 / gap + _GROWTH)


@triton.jit
def _round_span(origin, direction):
    """A missed ball has its exit before its entry."""
    speed = tl.maximum(dot(direction, direction), 1e-12)
    closest = -dot(origin, direction) / speed
    nearest = ray_at(origin, closest, direction)
    square = (1 - dot(nearest, nearest)) / speed
    half = tl.where(square >= 0, tl.sqrt(tl.maximum(square, 0.0)), -1.0)
    return closest - half, closest + half


@triton.jit
def _round_entry(shape: tl.constexpr, origin, direction, entry):
    core: tl.constexpr = _CUBE_CORE if shape == CUBE else _CYLINDER_CORE
    square: tl.constexpr = (1 - core) * (1 - core)
    for _ in range(_EDGE_STEPS):
        point = ray_at(origin, entry, direction)
        if shape == CUBE:
            away = subtract(point, cube_core(point))
        else:
            away = subtract(point, cylinder_core(point))
        excess = dot(away, away) - square
        excess = tl.where(excess > _EDGE_SLACK * square, excess, 0.0)
        entry -= excess / tl.minimum(2 * dot(away, direction), -1e-12)
    return entry


@triton.jit
def _slab_span(origin, direction):
    inverse = 1 / tl.where(tl.abs(direction) < 1e-9, 1e-9, direction)
    middle, half = -origin * inverse, tl.abs(inverse)
    return middle - half, middle + half


@triton.jit
def _clamp(value, limit):
    return tl.minimum(tl.maximum(value, -limit), limit)
