"""Perceptual distances of image pairs by features of AlexNet and VGG-16: LPIPS and DISTS."""
