"""The study's own model: MobileNetV2 and its fine-tuning (extra `train`)."""
