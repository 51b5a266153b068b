"""Slow loops for the scores of 2D masks, from their definitions."""

from __future__ import annotations

import math


def border(mask):
    height, width = len(mask), len(mask[0])

    def inside(row, column):
        return 0 <= row < height and 0 <= column < width and mask[row][column]

    return [
        (row, column)
        for row in range(height)
        for column in range(width)
        if mask[row][column] and not all(inside(row + dr, column + dc) for dr, dc in ((1, 0), (-1, 0), (0, 1), (0, -1)))
    ]


def directed_distances(mask, other):
    return [min(math.dist(point, target) for target in border(other)) for point in border(mask)]


def e_measure_loop(prediction, reference):
    pixels = [(bool(p), bool(r)) for row in zip(prediction, reference, strict=True) for p, r in zip(*row, strict=True)]
    count = len(pixels)
    mean_p, mean_r = (sum(pixel[i] for pixel in pixels) / count for i in (0, 1))
    total = 0.0
    for p, r in pixels:
        if mean_r == 0:
            total += 1 - p
        elif mean_r == 1:
            total += p
        else:
            a, b = p - mean_p, r - mean_r
            total += (2 * a * b / (a * a + b * b + 1e-8) + 1) ** 2 / 4
    return total / (count - 1 + 1e-8)


def s_measure_loop(prediction, reference):
    height, width = len(reference), len(reference[0])
    cells = [(row, column) for row in range(height) for column in range(width)]
    inside = [cell for cell in cells if reference[cell[0]][cell[1]]]
    values = {cell: float(prediction[cell[0]][cell[1]]) for cell in cells}
    if not inside:
        return 1 - sum(values.values()) / len(cells)
    if len(inside) == len(cells):
        return sum(values.values()) / len(cells)

    def object_part(numbers):
        mean = sum(numbers) / len(numbers)
        deviation = math.sqrt(sum((n - mean) ** 2 for n in numbers) / len(numbers))
        return 2 * mean / (mean**2 + 1 + deviation + 1e-8)

    share = len(inside) / len(cells)
    outside = [cell for cell in cells if cell not in set(inside)]
    objects = share * object_part([values[cell] for cell in inside])
    objects += (1 - share) * object_part([1 - values[cell] for cell in outside])
    center = [round(sum(cell[axis] for cell in inside) / len(inside)) + 1 for axis in (0, 1)]
    regions = 0.0
    for low in (True, False):
        for left in (True, False):
            quadrant = [cell for cell in cells if (cell[0] < center[0]) == low and (cell[1] < center[1]) == left]
            if not quadrant:
                continue
            count = len(quadrant)
            x = [values[cell] for cell in quadrant]
            y = [float(reference[cell[0]][cell[1]]) for cell in quadrant]
            mean_x, mean_y = sum(x) / count, sum(y) / count
            variance_x = sum((v - mean_x) ** 2 for v in x) / count
            variance_y = sum((v - mean_y) ** 2 for v in y) / count
            products = sum((v - mean_x) * (w - mean_y) for v, w in zip(x, y, strict=True))
            covariance = products / (count - 1) if count > 1 else 0.0
            alpha = 4 * mean_x * mean_y * covariance
            beta = (mean_x**2 + mean_y**2) * (variance_x + variance_y)
            similarity = alpha / (beta + 1e-8) if alpha != 0 else float(beta == 0)
            regions += count / len(cells) * similarity
    return 0.5 * objects + 0.5 * regions
