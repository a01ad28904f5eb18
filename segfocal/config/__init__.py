"""The configuration: typed classes, their registration with Hydra, and the checks. Nothing here imports torch."""
