"""What people have set in ``polypod.toml``: found, read, and trusted."""
