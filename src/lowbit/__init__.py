"""Post-training quantization of trained networks, measured honestly on the files it writes."""
