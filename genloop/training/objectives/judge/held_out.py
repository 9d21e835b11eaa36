"""The answers of a judge to held-out questions: margins of yes against no, with the labels they are measured by."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from genloop.data.judge.conversation_examples import Recognize
from genloop.data.judge.conversations import says_yes
from genloop.data.judge.examples import QUESTIONS
from genloop.distributed import World
from genloop.models.common.memory import Budget
from genloop.models.llava.model import Llava, image_features, llava_config
from genloop.records import HeldOutAnswer
from genloop.training.objectives.judge.batches import PixelsOf, read_image
from genloop.training.objectives.judge.branches import Branch, Branches
from genloop.training.objectives.judge.data import JudgeData, asked_in
from genloop.training.objectives.judge.losses import yes_no_margin
from genloop.training.objectives.judge.packing import Row, pack, supervised_hidden
from genloop.training.reductions import sum_over_ranks

FINAL, PREVIEW = "final", "preview"  # the steps of conversations: about a finished image, or one that is not
_ROWS = 128  # rows of a batch


@dataclass(frozen=True, eq=False)
class _Asked:
    """An image, branches behind it, and the number of the answer at each supervised position; -1 for names."""

    image: tuple[int, int]
    branches: Sequence[Branch]
    answers: Sequence[int]


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Held-out examples and conversations. `recognize` tells what a turn of a conversation asks."""

    data: JudgeData
    branches: Branches
    pixels_of: PixelsOf
    recognize: Recognize

    @torch.no_grad()
    def answers(self, model: Llava, world: World) -> list[HeldOutAnswer]:
        """Every held-out answer of a model; ranks share the work, all get all of them."""
        was_training = model.training
        model.eval()
        answers: list[HeldOutAnswer] = []
        asked = [*self._conversations(answers), *self._examples(answers)]
        own = sorted(asked[world.rank :: world.world_size], key=lambda one: sum(len(b.ids) for b in one.branches))
        margins = np.zeros(len(answers))

        def compute(part: Sequence[_Asked]) -> Sequence[_Asked]:
            numbers = np.array([number for one in part for number in one.answers])
            margins[numbers[numbers >= 0]] = self._margins(model, part, np.flatnonzero(numbers >= 0))
            return part

        Budget(_ROWS, "held-out images in a pass").run(own, 1, compute)
        model.train(was_training)
        margins = sum_over_ranks(margins, world)
        return [replace(answer, margin=margin) for answer, margin in zip(answers, margins.tolist(), strict=True)]

    def _conversations(self, answers: list[HeldOutAnswer]) -> Iterator[_Asked]:
        """Turns that are answered with yes or no; appends their answers, without margins."""
        for number, conversation in enumerate(self.data.conversations):
            branch = self.branches.of_yes_no_turns(conversation.turns)
            if branch is None:
                continue
            first = len(answers)
            for turn in branch.targets.tolist():
                question, prompt = asked_in(conversation.turns, turn, self.recognize)
                step = PREVIEW if question in ("clarity", "potential") else FINAL
                label = float(says_yes(conversation.turns[turn][1]) is True)
                answers.append(HeldOutAnswer(question, step, "", prompt, label))
            yield _Asked((-1, number), [branch], range(first, len(answers)))

    def _examples(self, answers: list[HeldOutAnswer]) -> Iterator[_Asked]:
        """Examples with their questions; appends their answers, without margins."""
        for source, data in enumerate(self.data.sets):
            for example, labels, image in zip(data.examples, data.labels.tolist(), data.image_of.tolist(), strict=True):
                branches = self.branches.of_example(example)
                numbers = {}
                for kind in sorted({k for b in branches for k in b.kinds.tolist() if k < len(QUESTIONS)}):
                    is_scene = example.source == "scenes" and QUESTIONS[kind] == "outcome"
                    name, tag = "scenes" if is_scene else QUESTIONS[kind], example.prompt.tag or ""
                    numbers[kind] = len(answers)
                    answers.append(HeldOutAnswer(name, example.moment, tag, example.prompt.text, labels[kind]))
                if branches:
                    kinds = [kind for branch in branches for kind in branch.kinds.tolist()]
                    yield _Asked((source, image), branches, [numbers.get(kind, -1) for kind in kinds])

    def _margins(self, model: Llava, asked: Sequence[_Asked], wanted: np.ndarray) -> np.ndarray:
        """-> float64 margins of the wanted supervised positions; ValueError where the model gives no number."""
        places = {image: place for place, image in enumerate(dict.fromkeys(one.image for one in asked))}
        pixels = torch.stack([self.pixels_of(read_image(self.data, image)) for image in places])
        packed = pack([Row(places[one.image], one.branches) for one in asked], llava_config(model).num_image_positions)
        device = model.device
        hidden = supervised_hidden(model, image_features(model, pixels.to(device)), packed.to(device))
        logits = model.lm_head(hidden[torch.from_numpy(wanted).to(device)]).float()
        margin = yes_no_margin(logits, self.branches.yes, self.branches.no)
        if not margin.isfinite().all():
            lost = int((~margin.isfinite()).sum())
            raise ValueError(f"the judge gives no number for {lost} of {len(margin)} held-out answers; lower train.lr")
        return margin.double().cpu().numpy()
