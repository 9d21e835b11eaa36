"""Judges of answers about images, in pairs. Each name is a maker (`genloop.rewards.responses.settings.ResponseMaker`).

`chat` is a Qwen2-VL, Qwen2.5-VL, LLaVA-OneVision or InstructBLIP; `remote` a server that writes verdicts; `scored` any
judge of images, CLIP among them, that scores each answer by itself.
"""

RESPONSE_JUDGES = {
    "chat": "genloop.rewards.responses.chat:ChatMaker",
    "remote": "genloop.rewards.responses.remote:RemoteMaker",
    "scored": "genloop.rewards.responses.scored:ScoredMaker",
}
