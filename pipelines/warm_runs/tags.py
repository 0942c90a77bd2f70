"""The run tag that says which launcher took a run, and so who ends it and knows of its health."""

LAUNCHED_BY = "numnaroad/launched_by"
BY_WARM_HOST = "warm host"
BY_DEFAULT = "default launcher"
