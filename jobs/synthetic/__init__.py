"""The synthetic corpus: clips with known answers, drawn from a seed."""
