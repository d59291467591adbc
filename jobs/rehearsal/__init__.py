"""Small networks of random weights, of the classes that the published ones are of, and on disk."""
