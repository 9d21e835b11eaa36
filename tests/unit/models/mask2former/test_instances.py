"""Instances from logits: what a threshold leaves out changes nothing in what stays."""

import pytest
import torch

from genloop.models.mask2former.instances import instances
from genloop.models.mask2former.pixels import Sizes

SIZES = Sizes((37, 50), (60, 81), (64, 96))


def logits(num_queries=9, num_classes=20, seed=0):
    generator = torch.Generator().manual_seed(seed)
    classes = 3 * torch.randn(num_queries, num_classes + 1, generator=generator)
    coarse = 4 * torch.randn(1, num_queries, 4, 6, generator=generator)
    return classes, torch.nn.functional.interpolate(coarse, (16, 24), mode="bilinear")[0]


def facts(one):
    return one.query, one.label, one.score, one.box, one.area


@pytest.mark.parametrize("threshold", [-1.0, 0.0, 0.05, 0.3, 0.9])
def test_a_threshold_leaves_the_rest_as_it_was(threshold):
    everything = instances(*logits(), SIZES)
    some = instances(*logits(), SIZES, threshold=threshold, needs_mask=lambda label: label % 2 == 0)
    limit = torch.tensor(threshold)
    kept = [one for one in everything if torch.tensor(one.score) > limit]
    assert [facts(one) for one in some] == [facts(one) for one in kept]
    for one, full in zip(some, kept):
        assert (one.mask is None) == (one.label % 2 == 1)
        assert one.mask is None or torch.equal(one.mask, full.mask)


def test_a_score_just_at_the_threshold_is_left_out():
    everything = instances(*logits(), SIZES)
    middle = everything[4].score
    above = instances(*logits(), SIZES, threshold=middle)
    assert [one.score for one in above] == [one.score for one in everything if one.score > middle]


def test_a_query_does_not_depend_on_the_others():
    classes, masks = logits()
    everything = {(one.query, one.label): facts(one) for one in instances(classes, masks, SIZES, max_instances=180)}
    for query in range(len(classes)):
        (alone, *_) = instances(classes[query : query + 1], masks[query : query + 1], SIZES)
        assert facts(alone)[1:] == everything[query, alone.label][1:]


def test_boxes_and_areas_are_those_of_the_masks():
    for one in instances(*logits(), SIZES):
        rows, columns = torch.nonzero(one.mask, as_tuple=True)
        assert one.mask.shape == SIZES.original and one.area == len(rows) > 0
        assert one.box == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)


def test_an_empty_mask_has_no_score_and_no_box():
    classes, masks = logits()
    masks[3] = -5.0
    found = [one for one in instances(classes, masks, SIZES) if one.query == 3]
    assert found and all(facts(one)[2:] == (0.0, (0.0, 0.0, 0.0, 0.0), 0) for one in found)
    assert instances(classes, masks.fill_(-1.0), SIZES, threshold=0.0) == []


def test_the_best_come_first_and_ties_in_order():
    classes, masks = torch.zeros(3, 5), torch.full((3, 16, 24), 8.0)
    found = instances(classes, masks, SIZES, max_instances=6)
    assert [(one.query, one.label) for one in found] == [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (1, 1)]
