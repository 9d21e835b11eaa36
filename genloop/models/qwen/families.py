"""The way of a chat model's family with texts and with images."""

from genloop.models.instructblip.chat import InstructChat
from genloop.models.instructblip.images import InstructPictures
from genloop.models.qwen.chat import Chat
from genloop.models.qwen.config import SYSTEM, ChatFolder
from genloop.models.qwen.images import Pictures


def chat_of(folder: ChatFolder, system: str = SYSTEM) -> Chat:
    """What writes its chats."""
    return (InstructChat if folder.family == "instructblip" else Chat)(folder, system)


def pictures_of(folder: ChatFolder) -> Pictures | None:
    """What takes its images; None for a model of text."""
    if not folder.sees:
        return None
    return (InstructPictures if folder.family == "instructblip" else Pictures)(folder)
