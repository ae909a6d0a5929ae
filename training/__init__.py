"""Makes `qwen3-demo`, the tiny chat model that ships inside Onebox, from nothing but this code.

`python -m training` runs every stage: corpus, tokenizer, training, export, scores, card. The server
never imports this package.
"""
