"""What every other package uses: errors, records, rotations, bins, files, parallel work."""
