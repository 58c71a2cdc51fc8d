"""The training of backbones and heads."""
