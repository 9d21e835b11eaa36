"""The tables of detectors and colour classifiers: name -> "module:class" of a maker (`geneval.settings.PartMaker`)."""

DETECTORS = {
    "hf_mask2former": "geneval.mask2former:Mask2Former",
    "mmdet": "geneval.mmdet_backend:Mmdet",
    "shapes": "genloop.shapes.detector:Shapes",
}
COLOR_CLASSIFIERS = {
    "clip": "geneval.clip_colors:Clip",
    "shapes": "genloop.shapes.detector:Shapes",
}
