"""An embedded fleet: real SSH, PostgreSQL, Redis and S3 under one directory, for the demo and the tests."""
