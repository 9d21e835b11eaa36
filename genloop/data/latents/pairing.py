"""Two sets of captioned images as pairs: the n-th image of a caption in one belongs to the n-th of it in the other."""

from collections import defaultdict

from genloop.data.latents.examples import CaptionedImages


def partners_of(chosen: CaptionedImages, rejected: CaptionedImages, key: str) -> list[int]:
    """For every chosen image the position of its partner.

    ValueError, which begins with `key`, where there is none, or one whose crop is of another size.
    """
    places: dict[str, list[int]] = defaultdict(list)
    for position, example in enumerate(rejected.examples):
        places[example.caption].append(position)
    taken: dict[str, int] = defaultdict(int)
    partners: list[int] = []
    for example in chosen.examples:
        number, there = taken[example.caption], places[example.caption]
        taken[example.caption] += 1
        if number >= len(there):
            caption = chosen.captions[example.caption]
            raise ValueError(
                f"{key}: sample {example.key} has no partner: {len(there)} images of {caption!r}, this is number "
                f"{number + 1}; draw them from the same prompts"
            )
        partner = rejected[there[number]]
        if partner.crop.size != example.crop.size:
            raise ValueError(
                f"{key}: samples {example.key} and {partner.key} of a pair are cut to unequal sizes, "
                f"{tuple(example.crop.size)} and {tuple(partner.crop.size)}; draw them in the same size"
            )
        partners.append(there[number])
    return partners
