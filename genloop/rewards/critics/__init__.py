"""Critics: what is wrong with an image, what repairs it, how to ask for a better one. Each name stands for a maker.

`rules` is the oracle of the refinement corpus, `qwen` a chat model that was trained on it, `majority` what the corpus
says most often.
"""

CRITICS = {
    "rules": "genloop.rewards.critics.rules:RulesMaker",
    "qwen": "genloop.rewards.critics.qwen:QwenMaker",
    "majority": "genloop.rewards.critics.majority:MajorityMaker",
}
