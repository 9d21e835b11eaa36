"""A judge that gets less memory than it asks for, as its own process: `python -m tests.worlds.limited_judge FOLDER`.

Prints what is logged, then the budget of tokens that is left and whether the answers are those of enough memory.
"""

import logging
import resource
import sys
from pathlib import Path

import torch

from genloop.models.llava.load import load_llava
from genloop.models.llava.text import LlavaTokenizer
from genloop.rewards.llava.judge import LlavaJudge
from genloop.rewards.questions import Questions
from tests.worlds.tiny_llava import some_images, some_prompts

MORE = 80_000_000  # bytes


def main() -> None:
    """Judge 48 images freely and then under the limit."""
    logging.basicConfig(level=logging.WARNING, stream=sys.stdout, format="%(message)s")
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    judge = LlavaJudge(load_llava(folder), LlavaTokenizer(folder), Questions(), cache_bytes=0)
    prompts, images = some_prompts() * 12, some_images(48)
    free = judge.p_yes("outcome", prompts, images)
    judge = LlavaJudge(judge.model, judge.tokenizer, judge.questions, cache_bytes=0)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MORE, resource.RLIM_INFINITY))
    tight = judge.p_yes("outcome", prompts, images)
    print("budget", judge._runner.budget.limit, "equal", torch.equal(free, tight))


if __name__ == "__main__":
    main()
