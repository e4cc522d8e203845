"""Circuits of vision models: what the weights between feature maps say, and whether it is true."""
