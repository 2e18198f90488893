"""CIFAR-10 and CIFAR-100 in all their official forms."""
