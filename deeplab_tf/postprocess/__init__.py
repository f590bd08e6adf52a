"""From model outputs to label maps."""
