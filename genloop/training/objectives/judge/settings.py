"""Config keys of judge training. No torch."""

from pydantic import Field, model_validator

from genloop.bounds import Count, CountOrNone, Factor, Layers, Share, Weight, Width
from genloop.config import ReadPath, Settings
from genloop.models.llava.config import LlavaConfig, TextDims, VisionDims


class DataConfig(Settings):
    """One data set; either shards or conversations. Both are fingerprinted by content."""

    shards: ReadPath | None = Field(None, description="folder that holds train and val")
    conversations: ReadPath | None = Field(None, description="a LLaVA conversation file (JSON)")
    images: ReadPath | None = Field(None, description="folder of the conversations' images")
    weight: Factor = Field(1.0, description="how often shards are drawn from, against the other shards")
    val_share: Share = Field(0.05, lt=1, description="share of the conversations' prompts that is held out")

    @model_validator(mode="after")
    def _one_of_both(self) -> "DataConfig":
        if (self.shards is None) == (self.conversations is None):
            raise ValueError("needs either shards or conversations")
        if self.conversations is not None and self.images is None:
            raise ValueError("conversations need images, the folder that their image names are below")
        return self


class ModelShape(Settings):
    """Sizes of a new model, for images of the embedded world; its vocabulary is the world's words."""

    image_size: Width = Field(24, ge=4, description="pixels on a side of the images")
    patch_size: Width = Field(4, description="pixels on a side of a patch")
    vision_size: Width = Field(96, ge=8, description="width of the vision tower")
    vision_mlp: Width = Field(192, ge=8, description="width inside of its MLPs")
    vision_layers: Layers = Field(2, description="its layers")
    vision_heads: Width = Field(4, description="heads of a layer")
    text_size: Width = Field(96, ge=8, description="width of the language model")
    text_mlp: Width = Field(256, ge=8, description="width inside of its MLPs")
    text_layers: Layers = Field(2, description="its layers")
    text_heads: Width = Field(4, description="heads of a layer")
    text_kv_heads: Width = Field(4, description="heads of keys and values")
    rope_theta: Factor = Field(1e6, gt=1, description="longest wavelength of rotary positions")

    def sizes(self, *, num_words: int = 1, image_word: int = 0) -> LlavaConfig:
        """The model's config with a vocabulary of `num_words`, in which `image_word` stands for the image."""
        return LlavaConfig(
            vision=VisionDims(
                hidden_size=self.vision_size,
                intermediate_size=self.vision_mlp,
                num_hidden_layers=self.vision_layers,
                num_attention_heads=self.vision_heads,
                image_size=self.image_size,
                patch_size=self.patch_size,
            ),
            text=TextDims(
                hidden_size=self.text_size,
                intermediate_size=self.text_mlp,
                num_hidden_layers=self.text_layers,
                num_attention_heads=self.text_heads,
                num_key_value_heads=self.text_kv_heads,
                vocab_size=num_words,
                max_position_embeddings=1024,
            ),
            rope_theta=self.rope_theta,
            image_token_index=image_word,
        )

    def check(self) -> None:
        """ValueError for sizes that do not go together."""
        heads_of = (("vision_size", "vision_heads"), ("text_size", "text_heads"), ("text_heads", "text_kv_heads"))
        for width, heads in heads_of:
            size, count = getattr(self, width), getattr(self, heads)
            if size % count:
                raise ValueError(f"model.{width}: {size} is not a multiple of model.{heads}={count}")
        if self.patch_size > self.image_size:
            raise ValueError(f"model.patch_size: {self.patch_size} is larger than model.image_size={self.image_size}")
        if self.text_size // self.text_heads % 2:
            raise ValueError(
                f"model.text_size: {self.text_size} does not give {self.text_heads} heads of an even width"
            )


_ITEMS = {
    "groups": "images of generate or of conversations",
    "scenes": "drawn scenes",
    "conversations": "conversations to train on",
}


class BatchSettings(Settings):
    """What a step of judge training looks at."""

    groups: CountOrNone = Field(10, description="prompts with generated images")
    paths: Count = Field(6, description="paths of a prompt")
    previews: CountOrNone = Field(2, description="steps whose previews are shown beside the final images")
    scenes: CountOrNone = Field(48, multiple_of=2, description="drawn scenes of the embedded world")
    conversations: CountOrNone = Field(0, description="conversations from published files")

    @property
    def num_items(self) -> int:
        """What is distributed over the ranks: groups, pairs of scenes, conversations."""
        return self.groups + self.scenes // 2 + self.conversations

    def check_filled(self, key: str, *, there: bool) -> None:
        """ValueError when items of a kind are wanted that are not `there`."""
        if not there and (number := getattr(self, key)):
            raise ValueError(f"batch.{key}: {number} in a batch, but the data has no {_ITEMS[key]}; set batch.{key}=0")


class LossSettings(Settings):
    """Weights of the terms of a judge's loss; each is a mean over the batch."""

    outcome: Weight = Field(1.0, description="is the image right; soft cross-entropy of the first answer token")
    potential: Weight = Field(1.0, description="can the preview still become right")
    clarity: Weight = Field(0.3, description="can the preview be judged")
    pairs: Weight = Field(0.5, description="rank images of one prompt at one step: logistic loss of the margin")
    scenes: Weight = Field(1.0, description="outcome of drawn scenes")
    cells: Weight = Field(1.0, description="name shape and colour of every cell, by the words' own embeddings")
    names: Weight = Field(0.0, description="at every shape and colour word of a prompt: is it in the image")
    reason: Weight = Field(0.0, description="say what is wrong; needs a question `reason`")
    words: Weight = Field(1.0, description="answers of conversations")
