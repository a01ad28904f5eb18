"""`python -m segfocal.export`: a checkpoint as a file that others can use.

`source` makes a checkpoint what is exported, `graph` what both graphs are made of, `torch_export` and `onnx` write them, `parity`
compares them with what they were made of, `place` puts the file where it belongs, `command` is all of it.
"""
