"""The tables of detectors and colour classifiers: name -> "module:class" of a maker (`geneval.settings.PartMaker`)."""

DETECTORS = {
    "shapes": "genloop.shapes.detector:Shapes",
}
COLOR_CLASSIFIERS = {
    "shapes": "genloop.shapes.detector:Shapes",
}
