"""The image side of the model: CLIP's vision transformer up to the wanted layer, and the projector."""

import torch
from torch import nn
from transformers import CLIPVisionConfig
from transformers.activations import ACT2FN
from transformers.models.clip.modeling_clip import CLIPEncoder, CLIPPreTrainedModel, CLIPVisionEmbeddings

from .configuration import ParrotConfig


class ParrotVisionTower(CLIPPreTrainedModel):
    """CLIP's vision transformer, cut off after the hidden state that is used: later layers do not exist here.

    Its tensors have the names of transformers' CLIPVisionModel, the same in memory and in a file, which the Trainer's
    resume relies on. A frozen tower records no graph, because nothing in it requires a gradient.

    Args:
        config: of the whole encoder.
        num_layers: how many of its layers are kept.
    """

    config_class = CLIPVisionConfig
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    _input_embed_layer = "patch_embedding"

    def __init__(self, config: CLIPVisionConfig, num_layers: int):
        super().__init__(config)
        self.embeddings = CLIPVisionEmbeddings(config)
        self.pre_layrnorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)  # spelt so in every checkpoint
        self.encoder = CLIPEncoder(config)
        self.encoder.layers = self.encoder.layers[:num_layers]
        self.post_init()

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """``[N, 3, S, S]`` → ``[N, P, hidden]``: hidden state ``num_layers``, class token first; N may be 0."""
        images = len(pixel_values)
        if not images:
            # CLIP's attention cannot reshape an empty batch, and sharded training needs every rank in every layer.
            pixel_values = pixel_values.new_zeros(1, *pixel_values.shape[1:])
        hidden = self.pre_layrnorm(self.embeddings(pixel_values))
        for layer in self.encoder.layers:
            hidden = layer(hidden, attention_mask=None)
        return hidden[:images]


class ParrotProjector(nn.Module):
    """Linear, GELU, Linear: from the vision encoder's width to C, the language model's."""

    def __init__(self, config: ParrotConfig):
        super().__init__()
        width = config.text_config.hidden_size
        self.linear_1 = nn.Linear(config.vision_config.hidden_size, width)
        self.act = ACT2FN[config.projector_hidden_act]
        self.linear_2 = nn.Linear(width, width)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """``[N, P, hidden] → [N, P, C]``."""
        return self.linear_2(self.act(self.linear_1(features)))
