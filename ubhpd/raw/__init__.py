"""Reads the files of raw datasets: folders, archives, images and label files."""
