"""Converters of published checkpoint files, by the kind that `genloop ckpts convert` names."""

CONVERTERS = {"mask2former": "ckpts.convert.mask2former:convert"}
