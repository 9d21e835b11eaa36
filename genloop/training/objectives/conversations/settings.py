"""Config keys of training on conversations. No torch."""

from typing import Literal

from pydantic import Field, model_validator

from genloop.bounds import Count, Factor, Layers, Share, Total, Width
from genloop.config import ReadPath, Settings
from genloop.data.responses.read import ResponseData
from genloop.models.qwen.config import SYSTEM


class ChatData(Settings):
    """One data set: shards, or a file of chats, or pairs of answers. All are fingerprinted by content."""

    shards: ReadPath | None = Field(None, description="folder of shards with messages, or one that holds train and val")
    chats: ReadPath | None = Field(None, description="chats: JSONL, or LLaVA's conversations (.json)")
    images: ReadPath | None = Field(None, description="folder of the images; default: that of `chats`")
    pairs: ResponseData | None = Field(None, description="objective=pairs: two answers to each question")
    val_share: Share = Field(0.05, lt=1, description="share of a set without val that is held out")
    limit: Total | None = Field(None, description="only the first so many chats, or pairs")

    @model_validator(mode="after")
    def _one_of_both(self) -> "ChatData":
        if sum(source is not None for source in (self.shards, self.chats, self.pairs)) != 1:
            raise ValueError("needs one of shards, chats and pairs")
        if self.chats is None and self.images is not None:
            raise ValueError("images belong to chats; shards hold their own, and pairs have a key for them")
        return self


class ChatSettings(Settings):
    """How chats become rows of tokens."""

    system: str = Field(
        SYSTEM,
        max_length=4096,
        description="said first where chats say nothing there; empty: what the chat template says by itself",
    )
    supervise: Literal["all", "last"] = Field("all", description="turns of the assistant that enter the loss")
    max_length: Count = Field(2048, ge=8, description="tokens of a row, those of images included")
    too_long: Literal["refuse", "drop", "cut"] = Field(
        "refuse", description="a longer chat is refused, left out, or its longest text of the user is cut at its front"
    )
    packing: bool = Field(True, description="several chats in a row, which do not see each other")
    batch_size: Count = Field(16, description="rows in a step, or pairs, over all ranks together")


class ChatModelShape(Settings):
    """Sizes of a new model of text; its tokenizer is trained on the chats."""

    vocab_size: Width = Field(1024, ge=264, description="tokens of byte-level BPE; 264: bytes alone")
    hidden_size: Width = Field(128, ge=8, description="width of a token")
    intermediate_size: Width = Field(256, ge=8, description="width inside of an MLP")
    num_hidden_layers: Layers = Field(4, description="transformer layers")
    num_attention_heads: Width = Field(4, description="heads of a layer")
    num_key_value_heads: Width = Field(4, description="heads of keys and values")
    rope_theta: Factor = Field(10000.0, gt=1, description="longest wavelength of rotary positions")
    initializer_range: Factor = Field(
        0.02, le=1, description="standard deviation of fresh matrices; narrow models learn faster from 1 / sqrt(width)"
    )

    def check(self) -> None:
        """ValueError for sizes that do not go together."""
        if self.hidden_size % (2 * self.num_attention_heads):
            raise ValueError(
                f"model.hidden_size: {self.hidden_size} does not give {self.num_attention_heads} heads of an even width"
            )
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"model.num_attention_heads: {self.num_attention_heads} is not a multiple of "
                f"model.num_key_value_heads={self.num_key_value_heads}"
            )

    def config(self, max_length: int, *, start: int, end: int) -> dict[str, object]:
        """config.json of the model; `start` and `end` are ids of tokens."""
        return self.model_dump(exclude={"rope_theta"}) | {
            "model_type": "qwen2",
            "max_position_embeddings": max_length,
            "rope_parameters": {"rope_type": "default", "rope_theta": self.rope_theta},
            "tie_word_embeddings": True,
            "bos_token_id": start,
            "eos_token_id": end,
        }
