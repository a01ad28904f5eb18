"""Segment a picture with an exported model, numpy and onnxruntime: python onnx_numpy.py model.onnx photo.png mask.png"""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

model, photo, mask = sys.argv[1:]
session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
about = {key: json.loads(value) for key, value in session.get_modelmeta().custom_metadata_map.items()}
picture = Image.open(photo)
if about["exif"] != "ignore":
    picture = ImageOps.exif_transpose(picture)
if picture.mode.startswith("I"):  # 16 bit, grey
    picture = Image.fromarray(np.asarray(picture, np.float32) / 257)
else:
    picture = picture.convert("L" if about["channels"] == 1 else "RGB")
stored = picture.size
if about["image_scale"] != 1:  # the mask is brought back to the size of the photo
    smaller = about["image_scale"] < 1
    size = [max(1, round(length * about["image_scale"])) for length in stored]
    picture = picture.resize(size, Image.Resampling.BOX if smaller else Image.Resampling.BICUBIC)
image = np.asarray(picture, np.float32)
height, width = image.shape[:2]
image = (image.reshape(height, width, -1) / 255 - about["mean"]) / about["std"]
taken = about["size"] or [length + -length % about["multiple"] for length in (height, width)]
if height > taken[0] or width > taken[1]:
    sys.exit(f"{photo}: {height} x {width} pixels; {model} takes no more than {taken[0]} x {taken[1]}: cut it, or export without size=")
image = np.pad(image, ((0, taken[0] - height), (0, taken[1] - width), (0, 0)))
if about["input"] == "pixels":  # the model normalises by itself: back to 0..255
    image = (image * about["std"] + about["mean"]) * 255
logits, probabilities = session.run(["logits", "probabilities"], {"image": image.transpose(2, 0, 1)[None].astype(np.float32)})
if about["task"] == "multiclass":
    planes = [(logits[0] + np.float32(about["offsets"])[:, None, None]).argmax(0)]
else:
    planes = list(probabilities[0] > np.float32(about["thresholds"])[:, None, None])
masks = [Image.fromarray(plane[:height, :width].astype(np.uint8)).resize(stored, Image.Resampling.NEAREST) for plane in planes]
Image.fromarray(np.concatenate(masks, axis=1)).save(mask)  # multilabel: a mask a class, side by side
