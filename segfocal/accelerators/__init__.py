"""Ascend for Lightning, which does not know it. Importing this imports neither torch nor torch_npu.

`installed` says without torch whether torch_npu can be there; `load` imports it and asks the device what it can do; `npu`,
`strategies` and `precision` are what Lightning is given, put together by `trainer`.
"""
