"""OpenImages as LVIS-format training data: vocabulary, boxes, selection, annotations."""
