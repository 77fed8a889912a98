"""Everything over HTTP that is not ingest: ordinary Litestar routes, one noun a file."""
