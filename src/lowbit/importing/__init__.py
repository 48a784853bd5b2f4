"""Models as people have them: what another framework wrote or built enters, an `onnx.ModelProto` leaves.

One module a framework; `table.py` says which one reads what. `lowbit.load` is the one way in (`formats/opening.py`).
"""
