"""The image side of the model: a vision transformer up to the wanted layer, and the projector."""

from typing import ClassVar

import torch
from torch import nn
from transformers import (
    ChineseCLIPPreTrainedModel,
    ChineseCLIPVisionConfig,
    CLIPPreTrainedModel,
    CLIPVisionConfig,
    PreTrainedConfig,
    SiglipPreTrainedModel,
    SiglipVisionConfig,
)
from transformers.activations import ACT2FN
from transformers.models.chinese_clip.modeling_chinese_clip import (
    ChineseCLIPVisionEmbeddings,
    ChineseCLIPVisionEncoder,
)
from transformers.models.clip.modeling_clip import CLIPEncoder, CLIPVisionEmbeddings
from transformers.models.siglip.modeling_siglip import SiglipEncoder, SiglipVisionEmbeddings

from .configuration import ParrotConfig


class _VisionTower:
    """A vision transformer, cut off after the hidden state that is used: later layers do not exist here.

    Its tensors have the names of transformers' own vision model, the same in memory and in a file, which the Trainer's
    resume relies on. A frozen tower records no graph.

    Args:
        config: of the whole encoder.
        num_layers: how many of its layers are kept.
    """

    main_input_name = "pixel_values"
    input_modalities = ("image",)
    _input_embed_layer = "patch_embedding"
    embeddings_class: ClassVar[type[nn.Module]]
    encoder_class: ClassVar[type[nn.Module]]
    pre_norm: ClassVar[bool] = True

    def __init__(self, config: PreTrainedConfig, num_layers: int):
        super().__init__(config)
        self.embeddings = self.embeddings_class(config)
        if self.pre_norm:  # its name is spelt so in every checkpoint
            self.pre_layrnorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.encoder = self.encoder_class(config)
        self.encoder.layers = self.encoder.layers[:num_layers]
        self.post_init()

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """``[N, 3, S, S]`` → ``[N, rows, hidden]``: hidden state ``num_layers``; a class token stands first.

        N may be 0.
        """
        # Gradient checkpointing makes every embedding's output require a gradient, of a frozen tower too, which would
        # then be computed a second time and followed back to the pixels, for nothing.
        learns = pixel_values.requires_grad or any(parameter.requires_grad for parameter in self.parameters())
        with torch.set_grad_enabled(torch.is_grad_enabled() and learns):
            return self._features(pixel_values)

    def _features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        images = len(pixel_values)
        if not images:
            # CLIP's attention cannot reshape an empty batch, and sharded training needs every rank in every layer.
            pixel_values = pixel_values.new_zeros(1, *pixel_values.shape[1:])
        hidden = self.embeddings(pixel_values)
        if self.pre_norm:
            hidden = self.pre_layrnorm(hidden)
        for layer in self.encoder.layers:
            hidden = layer(hidden, attention_mask=None)
        return hidden[:images]


class ParrotVisionTower(_VisionTower, CLIPPreTrainedModel):
    """CLIP."""

    config_class = CLIPVisionConfig
    embeddings_class, encoder_class = CLIPVisionEmbeddings, CLIPEncoder


class ChineseCLIPVisionTower(_VisionTower, ChineseCLIPPreTrainedModel):
    """Chinese-CLIP."""

    config_class = ChineseCLIPVisionConfig
    embeddings_class, encoder_class = ChineseCLIPVisionEmbeddings, ChineseCLIPVisionEncoder


class SiglipVisionTower(_VisionTower, SiglipPreTrainedModel):
    """SigLIP, which has no class token and no norm before its layers."""

    config_class = SiglipVisionConfig
    embeddings_class, encoder_class = SiglipVisionEmbeddings, SiglipEncoder
    pre_norm = False


VISION_TOWERS = {
    tower.config_class.model_type: tower for tower in (ParrotVisionTower, ChineseCLIPVisionTower, SiglipVisionTower)
}


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
