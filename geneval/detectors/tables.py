"""The tables of detectors and colour classifiers: name -> "module:class" of a maker (`geneval.settings.PartMaker`)."""

DETECTORS = {
    "hf_mask2former": "geneval.detectors.mask2former:Mask2FormerMaker",
    "mmdet": "geneval.detectors.mmdet:Mmdet",
    "shapes": "genloop.shapes.detector:Shapes",
}
COLOR_CLASSIFIERS = {
    "clip": "geneval.colors.clip:ClipColorMaker",
    "shapes": "genloop.shapes.detector:Shapes",
}
