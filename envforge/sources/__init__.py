"""The only door to the network: files by hash, archives by distribution."""
