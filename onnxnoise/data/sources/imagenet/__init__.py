"""ImageNet's validation images in all the forms in which people keep them."""
