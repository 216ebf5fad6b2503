"""Everything behind the page: jobs, compression, measurement, results."""
