"""Pictures of densities, and the style of all pictures."""
