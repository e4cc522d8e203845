"""The bundled language model: its tokenizer, training, baseline and checksums."""
