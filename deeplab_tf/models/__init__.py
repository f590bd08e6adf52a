"""Networks: encoder, head and decoder put together."""
