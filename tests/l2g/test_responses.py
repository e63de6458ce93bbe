"""Response maps into masks, and masks into scores, by hand."""

import numpy as np
import pytest
import torch
from torch import nn

from fss.l2g.quality import image_counts, quality
from fss.l2g.responses import pseudo_mask, responses, scaled


def test_classes_compete_with_each_other_and_with_the_background():
    response = torch.tensor([[[8.0, 2.0, -1.0, 1.0]], [[1.0, 3.0, 0.5, 0.0]], [[9.0, 9.0, 9.0, 9.0]]])
    maps = scaled(response, torch.tensor([True, True, False]))
    # class 1: 1, .25, 0, .125; class 2: .333, 1, .167, 0; class 3 is absent, whatever it answers
    mask, confidence = pseudo_mask(maps, 0.25)
    assert mask.tolist() == [[1, 2, 0, 0]]
    assert confidence[0].tolist() == pytest.approx([1, 1, 1 / 6, 0.125])
    assert pseudo_mask(maps, 0.15)[0].tolist() == [[1, 2, 2, 0]]


def test_a_class_that_nothing_answers_to_is_nowhere():
    mask, confidence = pseudo_mask(scaled(-torch.ones(2, 3, 3), torch.tensor([True, True])), 0.25)
    assert not mask.any() and not confidence.any()


class Columns(nn.Module):
    """Answers with the image's first colour at stride 8, in the first channel; the last is the background."""

    def forward(self, images):
        return torch.cat([images[:, :1, ::8, ::8], images[:, :1, ::8, ::8] * 0 + 1000], 1)


def test_scales_and_flips_are_averaged_at_the_images_size():
    image = torch.randint(0, 256, (3, 48, 64), dtype=torch.uint8)
    call = lambda scales, flips, image=image: responses(Columns(), image, scales, flips, 1024, False)  # noqa: E731
    one, two, both = call([1.0], False), call([2.0], False), call([1.0, 2.0], False)
    assert one.shape == (1, 48, 64) and torch.allclose(both, (one + two) / 2, atol=1e-5)
    mirrored = call([1.0], False, image.flip(2)).flip(2)
    assert torch.allclose(call([1.0], True), (one + mirrored) / 2, atol=1e-5)


def test_probabilities_are_of_the_softmax_over_channels():
    image = torch.randint(0, 256, (3, 48, 64), dtype=torch.uint8)
    found = responses(Columns(), image, [1.0], False, 1024, False, probability=True)
    assert found.max() < 1e-30  # the background answers 1000, more than any byte
    assert responses(Columns(), image, [1.0], False, 1024, False).abs().max() > 0.1


def test_large_images_are_computed_smaller():
    seen = []

    class Watching(Columns):
        def forward(self, images):
            seen.append(tuple(images.shape))
            return super().forward(images)

    image = torch.zeros(3, 100, 200, dtype=torch.uint8)
    assert responses(Watching(), image, [0.5, 1.0], True, 80, False).shape == (1, 100, 200)
    assert seen == [(2, 3, 32, 40), (2, 3, 40, 80)]  # no side below 32


def test_counts_and_scores_by_hand():
    largest = np.array([[1, 1, 2, 2]])
    confidence = np.array([[0.9, 0.4, 0.8, 0.9]], np.float32)
    truth = np.array([[1, 0, 2, -1]])
    counts = image_counts(largest, confidence, truth, [0.3, 0.5])
    assert counts == {
        0: ([0, 1], [0, 1], [1, 1]), 1: ([1, 1], [2, 1], [1, 1]), 2: ([1, 1], [1, 1], [1, 1]),
    }  # fmt: skip
    low, high = quality([counts, counts], [0.3, 0.5], ["a", "b", "c"])
    assert low["per_class"] == {"background": 0.0, "a": 50.0, "b": 100.0}  # c is in no image
    assert (low["miou"], low["miou_with_background"]) == (75.0, 50.0)
    assert (high["background"], high["miou_with_background"]) == (0.5, 100.0)
