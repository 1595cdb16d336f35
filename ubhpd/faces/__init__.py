"""From a picture to faces and back: where pictures come from, who finds the faces, how a pose is drawn on them."""
