"""Writers of rendered heads in the layouts of the raw datasets."""
