"""Parrot as transformers classes: images spliced into the prompt, each in the light of its own question."""

from typing import Any

import torch
from torch import nn
from transformers import (
    AutoModelForImageTextToText,
    GenerationMixin,
    LlamaModel,
    PreTrainedModel,
    Qwen2Model,
    Qwen3Model,
    initialization,
)
from transformers.cache_utils import Cache
from transformers.utils import can_return_tuple

from .configuration import ParrotConfig
from .generation import ParrotGeneration
from .last_layer import ROWS, let_choose_rows
from .moe import ExpertInput, ExpertOutput, TextGuidedMoE
from .outputs import ParrotCausalLMOutput, ParrotModelOutput
from .vision import VISION_TOWERS, ParrotProjector

IGNORED = -100
LANGUAGE_CLASSES = {"qwen2": Qwen2Model, "qwen3": Qwen3Model, "llama": LlamaModel}


class ParrotPreTrainedModel(PreTrainedModel):
    """What the two Parrot classes share: loading, saving, initialisation."""

    config_class = ParrotConfig
    base_model_prefix = "model"
    input_modalities = ("image", "text")
    supports_gradient_checkpointing = True
    _no_split_modules = [  # noqa: RUF012
        "CLIPEncoderLayer",
        "ChineseCLIPVisionLayer",
        "SiglipEncoderLayer",
        "Qwen2DecoderLayer",
        "Qwen3DecoderLayer",
        "LlamaDecoderLayer",
        "Qwen2LastLayer",
        "Qwen3LastLayer",
        "LlamaLastLayer",
        "TextGuidedMoE",
    ]
    _skip_keys_device_placement = ["past_key_values"]  # noqa: RUF012
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, ExpertInput | ExpertOutput):
            # Of transformers and not of torch: these leave a weight alone that a checkpoint has filled.
            initialization.normal_(module.weight, std=self.config.text_config.initializer_range)
            if module.bias is not None:
                initialization.zeros_(module.bias)


class ParrotModel(ParrotPreTrainedModel):
    """Vision encoder → projector → text-guided experts → language model, without the output layer."""

    def __init__(self, config: ParrotConfig):
        super().__init__(config)
        tower = VISION_TOWERS[config.vision_config.model_type]
        self.vision_tower = tower(config.vision_config, config.vision_layers)
        self.multi_modal_projector = ParrotProjector(config)
        self.moe = TextGuidedMoE(config) if config.num_experts else None
        self.language_model = LANGUAGE_CLASSES[config.text_config.model_type](config.text_config)
        let_choose_rows(self.language_model)
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        return self.language_model.embed_tokens

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        self.language_model.embed_tokens = value

    def get_vision_features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """What the projector sees: ``[N, 3, S, S]`` → ``[N, P, vision width]``, the class token first if it is kept."""
        features = self.vision_tower(pixel_values)
        return features[:, 1:] if self.config.has_class_token and not self.config.keeps_class_token else features

    def get_image_features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """H, the projected features: ``[N, 3, S, S]`` → ``[N, P, C]``, rows as before. Independent of any prompt."""
        return self.multi_modal_projector(self.get_vision_features(pixel_values))

    def mix(
        self, image_features: torch.Tensor, image_positions: torch.Tensor, words: torch.Tensor, text: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Visual tokens of every image, routed by its own sample's text (Eq. 2–5); H itself without experts.

        Args:
            image_features: H, ``[N, P, C]``, in reading order over the batch.
            image_positions: bool ``[B, T]``, P True per image, in whole images per sample.
            words: word embeddings, ``[B, T, C]``.
            text: bool ``[B, T]``, the words that the router reads.

        Returns:
            visual tokens ``[N, P, C]``, and the routing, float32 ``[N, E]`` (None without experts).
        """
        if self.moe is None:
            return image_features, None
        sample = torch.repeat_interleave(image_positions.sum(dim=1) // self.config.image_tokens)
        return self.moe(image_features, words[sample], text[sample])

    def embed_prompt(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        image_features: torch.Tensor | None = None,
        prompt_mask: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Word embeddings with every image position replaced by its visual token.

        Args:
            input_ids: int64 ``[B, T]``; ``image_token_id`` marks image positions, P per image, in reading order.
            attention_mask: ``[B, T]``, 0 at padding.
            pixel_values: ``[N, 3, S, S]``, the images in reading order over the batch. N may be 0: the empty batch
                passes through all parts, so that a training step without an image gives every weight a gradient.
            image_features: ``[N, P, C]`` of ``get_image_features``, in the place of ``pixel_values``.
            prompt_mask: bool ``[B, T]``, the positions the router reads; all text when not given. Image positions and
                padding never count.

        Returns:
            embeddings ``[B, T, C]``, and the routing, float32 ``[N, E]`` (None without images or experts).

        Raises:
            ValueError: image positions and images do not match, or both forms of images are given.
        """
        if pixel_values is not None and image_features is not None:
            raise ValueError("pixel_values and image_features are two forms of the same images; give one of them")
        image_positions = input_ids == self.config.image_token_id
        images = pixel_values if image_features is None else image_features
        self._check_images(image_positions, None if images is None else len(images))
        words = self.get_input_embeddings()(input_ids.masked_fill(image_positions, 0))
        if images is None:
            return words, None
        text = ~image_positions
        for mask in (attention_mask, prompt_mask):
            text = text if mask is None else text & mask.bool()
        image_features = self.get_image_features(pixel_values) if image_features is None else image_features
        visual_tokens, routing = self.mix(image_features, image_positions, words, text)
        return words.masked_scatter(image_positions[..., None], visual_tokens.to(words.dtype)), routing

    def _check_images(self, image_positions: torch.Tensor, images: int | None) -> None:
        """Raise ValueError unless the positions, bool ``[B, T]``, are those of ``images`` whole images."""
        tokens, found = self.config.image_tokens, image_positions.sum(dim=1).tolist()
        if images is None:
            if sum(found):
                raise ValueError(f"input_ids has {sum(found)} image positions, but there is no pixel_values")
        elif sum(found) != images * tokens or any(count % tokens for count in found):
            raise ValueError(
                f"input_ids has {found} image positions per sample, but there are {images} images of {tokens} "
                f"positions, {images * tokens} in all; give every image, and never cut a sample inside one"
            )

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        prompt_mask: torch.Tensor | None = None,
        image_features: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> ParrotModelOutput:
        """Arguments as in ``embed_prompt``; or ``inputs_embeds`` ``[B, T, C]``, which holds the images already."""
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give either input_ids or inputs_embeds")
        routing = None
        mask = attention_mask if isinstance(attention_mask, torch.Tensor) and attention_mask.dim() == 2 else None
        if inputs_embeds is None:
            # While decoding the mask covers the cache too; these tokens are its end.
            own = None if mask is None else mask[:, -input_ids.shape[1] :]
            inputs_embeds, routing = self.embed_prompt(input_ids, own, pixel_values, image_features, prompt_mask)
        if position_ids is None and mask is not None:
            # A sample has the same positions wherever its padding stands.
            position_ids = (mask.long().cumsum(dim=-1) - 1).clamp(min=0)[:, -inputs_embeds.shape[1] :]
        outputs = self.language_model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            use_cache=use_cache,
            **kwargs,
        )
        return ParrotModelOutput(
            last_hidden_state=outputs.last_hidden_state,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            routing=routing,
        )


# transformers looks for GenerationMixin among the direct bases to tell whether a model generates.
class ParrotForConditionalGeneration(ParrotPreTrainedModel, ParrotGeneration, GenerationMixin):
    """Parrot with its output layer: training loss, logits, ``generate``."""

    _tied_weights_keys = {"lm_head.weight": "model.language_model.embed_tokens.weight"}  # noqa: RUF012
    accepts_loss_kwargs = True  # the Trainer then gives num_items_in_batch, and does not divide the loss again

    def __init__(self, config: ParrotConfig):
        super().__init__(config)
        self.model = ParrotModel(config)
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        return self.model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        self.model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Linear:
        return self.lm_head

    def set_output_embeddings(self, value: nn.Linear) -> None:
        self.lm_head = value

    def get_image_features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """As ParrotModel.get_image_features: ``[N, 3, S, S]`` → ``[N, P, C]``."""
        return self.model.get_image_features(pixel_values)

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        prompt_mask: torch.Tensor | None = None,
        image_features: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor | None = None,
        answers_only: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
        **kwargs: Any,
    ) -> ParrotCausalLMOutput:
        """Logits, or with ``labels`` the loss; output layer and last MLP are run for no position that neither needs.

        Args:
            input_ids, attention_mask, pixel_values, image_features: as in ``ParrotModel.embed_prompt``.
            labels: int64 ``[B, T]``, -100 where nothing is supervised; position t is predicted from position t - 1.
            prompt_mask: bool ``[B, T]``, what the router reads. When not given: every text token, or with ``labels``
                every text token that is not an answer's.
            logits_to_keep: logits of the last so many positions (0: all), or of the positions of an index tensor. When
                not given: all without ``labels``, none with them.
            answers_only: return the logits that predict a supervised label, ``[S, vocabulary]`` in reading order, and
                leave the loss to the caller.
            num_items_in_batch: the supervised tokens of all the batches that one optimiser step adds up; the loss is
                then this batch's sum divided by it. When not given the loss is the mean over this batch's, 0 if there
                are none.

        Raises ValueError as ``embed_prompt`` does, and for ``answers_only`` without ``labels``.
        """
        if answers_only and labels is None:
            raise ValueError("answers_only picks logits by labels; give labels")
        if labels is not None:
            prompt_mask = labels == IGNORED if prompt_mask is None else prompt_mask
            use_cache = False if use_cache is None else use_cache
            supervised = nn.functional.pad(labels[:, 1:] != IGNORED, (0, 1))
        only_supervised = labels is not None and (answers_only or logits_to_keep is None)
        if only_supervised:
            kwargs[ROWS] = supervised
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            pixel_values=pixel_values,
            prompt_mask=prompt_mask,
            image_features=image_features,
            inputs_embeds=inputs_embeds,
            position_ids=position_ids,
            past_key_values=past_key_values,
            use_cache=use_cache,
            **kwargs,
        )
        hidden = outputs.last_hidden_state
        loss = logits = None
        if answers_only:
            logits = self.lm_head(hidden)
        elif logits_to_keep is not None or labels is None:
            kept = 0 if logits_to_keep is None else logits_to_keep
            logits = self.lm_head(hidden[:, slice(-kept, None) if isinstance(kept, int) else kept])
        if labels is not None and not answers_only:
            rows = hidden if only_supervised else hidden[supervised]
            loss = self._loss(rows, labels[:, 1:][labels[:, 1:] != IGNORED], num_items_in_batch)
        return ParrotCausalLMOutput(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            routing=outputs.routing,
        )

    def _loss(self, rows: torch.Tensor, targets: torch.Tensor, items: torch.Tensor | int | None) -> torch.Tensor:
        """Cross entropy in float32 of ``rows`` ``[S, C]``, behind which ``targets`` ``[S]`` come."""
        total = nn.functional.cross_entropy(self.lm_head(rows).float(), targets, reduction="sum")
        return total / (max(len(targets), 1) if items is None else items)


AutoModelForImageTextToText.register(ParrotConfig, ParrotForConditionalGeneration, exist_ok=True)
