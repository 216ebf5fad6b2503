"""Writes the trained network as a Llama checkpoint that any Llama loader reads."""

from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from data.network import NORM_EPSILON, ROTARY_BASE, Network, llama_weights
from data.tokenizer import END, END_TOKEN

LARGEST_SHARD = "9MB"


def export(network: Network, tokenizer: Tokenizer, folder: Path) -> None:
    """Write `network` in bf16 and its `tokenizer` into `folder`."""
    model = as_llama(network).to(torch.bfloat16)
    model.save_pretrained(folder, max_shard_size=LARGEST_SHARD)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END,
        eos_token=END,
        pad_token=END,
        model_max_length=network.shape.positions,
        clean_up_tokenization_spaces=False,
    ).save_pretrained(folder)


def as_llama(network: Network) -> LlamaForCausalLM:
    """Return a Llama model with the weights of `network`, in fp32."""
    shape, end = network.shape, END_TOKEN
    config = LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.feed_forward,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_heads,
        head_dim=shape.head_width,
        max_position_embeddings=shape.positions,
        rms_norm_eps=NORM_EPSILON,
        rope_parameters={"rope_type": "default", "rope_theta": ROTARY_BASE},
        tie_word_embeddings=True,
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
    )
    model = LlamaForCausalLM(config).eval()
    missing, unexpected = model.load_state_dict(llama_weights(network), strict=False)
    if unexpected or set(missing) - {"lm_head.weight"}:
        raise ValueError(f"Llama lacks {missing} and does not know {unexpected}.")
    model.generation_config = GenerationConfig(bos_token_id=end, eos_token_id=end, pad_token_id=end)
    return model
