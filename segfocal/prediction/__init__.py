"""What `python -m segfocal.predict` is made of: `inputs` finds images, `predictor` applies a checkpoint, `outputs` writes, `ledger` remembers."""
