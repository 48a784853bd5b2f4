"""Images enter; the study's own MobileNetV2 leaves, trained or fine-tuned (extra `train`)."""
