"""The scores of predictions: detections, cells, fields and proteins (docs/evaluation.md defines each)."""
