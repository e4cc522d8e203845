"""Looking at latents: examples, logit attribution."""
