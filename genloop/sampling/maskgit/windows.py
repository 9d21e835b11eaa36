"""Where the windows of an extrapolation lie: sizes and places in tokens. No torch.

S = side of the model's square grid. Each direction adds S/2 + overlap rows or columns to a canvas.
"""

from collections.abc import Sequence

Grid = tuple[int, int]


def check_growth(grid: Grid, overlap: int) -> None:
    """ValueError unless images of this grid can grow so."""
    side = grid[0]
    if grid[1] != side:
        raise ValueError(f"extrapolation needs a model with a square grid, found {side}x{grid[1]} tokens")
    if not 0 <= overlap < side // 2:
        raise ValueError(f"overlap is {overlap}, expected 0 to {side // 2 - 1} for a grid of {side}x{side}")


def grown(grid: Grid, directions: Sequence[str], overlap: int) -> tuple[Grid, int]:
    """The size of an image of `grid` that grew in these directions, and the number of windows that it takes."""
    side, (rows, columns), num_windows = grid[0], grid, 0
    for direction in directions:
        is_vertical = direction in {"up", "down"}
        num_windows += len(window_starts(columns if is_vertical else rows, side))
        rows, columns = (
            rows + is_vertical * (side // 2 + overlap),
            columns + (not is_vertical) * (side // 2 + overlap),
        )
    return (rows, columns), num_windows


def window_starts(length: int, side: int) -> list[int]:
    """Where windows of `side` begin so that they cover `length`, each half over the one before."""
    starts = list(range(0, length - side, max(1, side // 2)))
    return [*starts, length - side]
