"""The reference answer: transformers in fp32 on the dequantised weights of the very file."""

from pathlib import Path

import gguf
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from training.export import dequantised
from training.model import Shape


def reference_model(path: Path, shape: Shape) -> Qwen3ForCausalLM:
    config = Qwen3Config(
        vocab_size=shape.vocab,
        hidden_size=shape.hidden,
        intermediate_size=shape.ffn,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        max_position_embeddings=shape.context,
        rms_norm_eps=shape.norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": shape.rope_theta},
        tie_word_embeddings=True,
    )
    model = Qwen3ForCausalLM(config).float().eval()
    stored = dequantised(path)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN3, shape.layers)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            found = names.get_name(name, try_suffixes=(".weight",))
            parameter.copy_(torch.tensor(stored.pop(found)))
    if stored:
        raise ValueError(f"tensors nobody asked for: {sorted(stored)}")
    return model


@torch.inference_mode()
def greedy(
    model: Qwen3ForCausalLM, prompt: list[int], end: int, limit: int
) -> tuple[list[int], float]:
    """Continuation ids, the end token included, and the smallest distance on the way between the
    two best logits; the mask of ones keeps pad tokens visible."""
    ids = torch.tensor([prompt])
    out = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=limit,
        do_sample=False,
        eos_token_id=end,
        pad_token_id=end,
        return_dict_in_generate=True,
        output_logits=True,
    )
    best, second = torch.cat(out.logits).topk(2).values.unbind(-1)
    return out.sequences[0, len(prompt) :].tolist(), (best - second).min().item()
