"""A sample of a plug-in package for ubhpd: one dataset, one metric, one model, one export format."""
