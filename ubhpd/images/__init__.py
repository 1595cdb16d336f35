"""Images of heads: crop recipes, face detectors, landmarks, drawing."""
