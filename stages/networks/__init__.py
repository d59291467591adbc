"""The networks that stages measure with."""
