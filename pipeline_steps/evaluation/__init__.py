"""Average precision of detections: LVIS AP, AP_fixed and COCO AP, from detections tables or results files."""
