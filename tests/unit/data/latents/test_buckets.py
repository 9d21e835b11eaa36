"""Sizes of buckets, crops, and the order of batches of one bucket."""

import numpy as np
import pytest

from genloop.data.latents.buckets import BucketOrder, Size, bucket_sizes, crop_of, cut
from tests.worlds.captioned_images import picture


@pytest.mark.parametrize(("resolution", "step"), [(512, 64), (1024, 64), (24, 4)])
def test_sizes_are_multiples_of_the_step_within_the_area_in_both_directions(resolution: int, step: int) -> None:
    sizes = bucket_sizes(resolution, step)
    assert Size(resolution, resolution) in sizes
    assert all(not side % step for size in sizes for side in size)
    assert all(width * height <= resolution**2 for width, height in sizes)
    assert {(height, width) for width, height in sizes} == set(sizes)


@pytest.mark.parametrize(
    ("image", "size"),
    [
        (Size(512, 512), Size(512, 512)),
        (Size(1024, 1024), Size(512, 512)),
        (Size(1216, 832), Size(576, 448)),
        (Size(832, 1216), Size(448, 576)),
        (Size(3000, 1000), Size(832, 256)),
    ],
)
def test_an_image_goes_to_the_bucket_of_its_shape_and_loses_its_edges_alone(image: Size, size: Size) -> None:
    crop = crop_of(image, bucket_sizes(512, 64))
    assert crop.size == size
    assert crop.scaled.width == size.width or crop.scaled.height == size.height
    assert abs(crop.scaled.width - size.width - 2 * crop.left) <= 1
    assert abs(crop.scaled.height - size.height - 2 * crop.top) <= 1


def test_an_image_of_the_size_of_its_bucket_is_not_touched() -> None:
    image = picture(0, 24, 24)
    assert (cut(image, crop_of(Size(24, 24), bucket_sizes(24, 4))) == image).all()
    assert cut(picture(0, 61, 33), crop_of(Size(61, 33), bucket_sizes(24, 4))).shape == (16, 32, 3)


def test_an_image_that_would_have_to_grow_is_refused() -> None:
    with pytest.raises(ValueError, match=r"400x512 .* 448x576"):
        crop_of(Size(400, 512), bucket_sizes(512, 64))


@pytest.mark.parametrize("sizes", [(7,), (6, 5, 1), (3, 2)])
def test_batches_are_full_of_one_bucket_and_all_samples_come_equally_often(sizes: tuple[int, ...]) -> None:
    starts = np.cumsum((0, *sizes))
    buckets = [np.arange(start, start + n) for start, n in zip(starts, sizes, strict=False)]
    shards = np.arange(sum(sizes)) % 3
    shards.sort()
    order = BucketOrder(buckets, shards, seed=3, batch_size=4)
    epochs = 40
    steps = epochs * sum(sizes) // 4 - len(sizes)
    batches = [order.rows(step) for step in range(1, steps + 1)]
    for rows in batches:
        assert len(rows) == 4
        assert len({int(np.searchsorted(starts, row, side="right")) for row in rows}) == 1
    counts = np.bincount(np.concatenate(batches), minlength=sum(sizes))
    assert counts.max() <= epochs and counts.min() >= epochs - 8
    again = BucketOrder(buckets, shards, seed=3, batch_size=4)
    assert [again.rows(step) for step in (steps, 1, steps // 2)] == [batches[-1], batches[0], batches[steps // 2 - 1]]
