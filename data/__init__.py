"""The embedded model and its texts: the world they tell of, the tokenizer, the trainer."""
