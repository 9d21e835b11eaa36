"""The config keys of MaskGIT sampling. No torch."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from genloop.bounds import Factor, Offset, Repeats, Weight
from genloop.config import ADDED, Settings, refusal

Preview = Literal["sampled", "argmax"]
Order = Literal["confidence", "object_first", "random"]
Backend = Literal["inductor", "cudagraphs", "aot_eager", "eager"]
TemperatureMode = Literal["maskgit", "cumulative", "reference"]


class SamplingConfig(Settings):
    """How image tokens are drawn and in which order they are kept."""

    steps: Repeats = Field(18, description="decoding steps")
    stop_after: Repeats | None = Field(
        None, description="stop after so many of the steps and take the rest as the preview fills it"
    )
    guidance_scale: Weight = Field(
        1.75, description="g in (1 + g) * conditional - g * unconditional; 0 switches guidance off"
    )
    schedule: str = Field(
        "cosine",
        pattern=r"^(cosine|linear|sigmoid|pow\d{1,3}(\.\d{1,9})?)$",
        description="share still masked over time: cosine, linear, sigmoid or pow followed by its exponent",
    )
    temperature: Weight = Field(1.0, description="Gumbel noise on the choice of the tokens that are kept")
    temperature_mode: TemperatureMode = Field(
        "maskgit",
        description="maskgit: falls linearly to 0; cumulative: Show-o's product of the same factors; reference: "
        "cumulative, and 0 for all but the first candidate of a prompt, as the published numbers were made",
    )
    token_temperature: Factor = Field(1.0, description="divides the logits before a token is drawn")
    order: Order = Field(
        "confidence", description="which tokens are kept first: the likely, those that are not background, or any"
    )
    object_bonus: Offset = Field(
        4.0, description="order=object_first: added to the log-probability of tokens that are not background"
    )
    preview: Preview = Field(
        "sampled", description="how a preview fills masked tokens: with the drawn or the likeliest codes"
    )
    padded: Annotated[bool | Literal["auto"], ADDED] = Field(
        "auto",
        description="rows behind texts of any length in one pass of a fixed shape: fewer kernels, other last bits; "
        "auto: on a GPU",
    )
    compile: Annotated[Backend | None, ADDED] = Field(
        None, description="backend of torch.compile for the padded pass; it compiles for minutes at the first step"
    )

    def is_padded(self, device_type: str) -> bool:
        """Whether rows are padded on a kind of device."""
        if self.padded == "auto":
            return device_type == "cuda" or self.compile is not None
        return self.padded

    @property
    def num_steps(self) -> int:
        """Steps that a path takes."""
        return self.steps if self.stop_after is None else self.stop_after

    @model_validator(mode="after")
    def _stops_in_time(self) -> "SamplingConfig":
        if self.num_steps > self.steps:
            raise refusal(f".stop_after: {self.stop_after} is more than the {self.steps} steps there are")
        return self

    @model_validator(mode="after")
    def _compiles_what_is_padded(self) -> "SamplingConfig":
        if self.compile is not None and self.padded is False:
            raise refusal(".compile: only the padded pass is compiled; leave out padded=false")
        return self
