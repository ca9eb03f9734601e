"""``generate`` for a model whose prompts hold images."""

from typing import Any

import torch
from transformers import GenerationMixin


class ParrotGeneration(GenerationMixin):
    """Splices the images into the prompt once, then leaves decoding to transformers.

    Copies of a row (beams, several sampled answers) are then copies of its embeddings, so no image is seen twice and
    none is counted to another row.
    """

    @torch.no_grad()
    def generate(
        self,
        inputs: torch.Tensor | None = None,
        generation_config: Any = None,
        *,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        image_features: torch.Tensor | None = None,
        prompt_mask: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """Generate after ``input_ids`` ``[B, T]``; images are seen, and routed, once.

        Every argument of transformers' ``generate`` works (sampling, beams, penalties, streamers). Returns what it
        returns: by default int64 ``[B, T + new]``, the prompt with its image positions first. A batch of prompts of
        different lengths is padded on the left. Raises ValueError for padding on the right.
        """
        input_ids = inputs if input_ids is None else input_ids
        if input_ids is None:
            raise ValueError("generate needs input_ids")
        attention_mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        if not attention_mask[:, -1].all():
            raise ValueError("generate continues at the end of a row: pad the prompts on the left, not on the right")
        embeds, _ = self.model.embed_prompt(input_ids, attention_mask, pixel_values, image_features, prompt_mask)
        # Penalties look tokens up by number, which an image position has not; the row's own last token stands in for
        # it there, a token that is counted as seen in any case.
        image_positions = input_ids == self.config.image_token_id
        seen = torch.where(image_positions, input_ids[:, -1:], input_ids)
        output = super().generate(
            seen, generation_config, inputs_embeds=embeds, attention_mask=attention_mask, **kwargs
        )
        sequences = output if isinstance(output, torch.Tensor) else output.sequences
        copies = len(sequences) // len(input_ids)
        sequences[:, : input_ids.shape[1]] = input_ids.repeat_interleave(copies, dim=0)
        return output
