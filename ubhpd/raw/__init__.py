"""The files of raw datasets as people have them: folders and archives, images, label files."""
