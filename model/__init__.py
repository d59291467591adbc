"""The CustomVideoX transformer, its codec, its text and its sampler; knows no data and no loop."""
