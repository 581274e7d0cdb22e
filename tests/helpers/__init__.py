"""What several tests share: phantoms as files, fakes, servers, a browser."""
