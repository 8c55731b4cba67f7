"""Serve one model over HTTP: stateless, one predict path under every protocol."""
