"""Converters of published checkpoint files, by the kind that `genloop ckpts convert` names."""

CONVERTERS = {"mask2former": "ckpts.convert.mask2former:convert", "lora": "ckpts.convert.lora:convert"}
OPTIONS = {"mask2former": ("preprocess", "trust_pickle"), "lora": ("base",)}  # of the command line, by kind
