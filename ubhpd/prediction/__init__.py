"""From a model and pictures to a prediction file: what is fed, the network at work, the file that grows."""
