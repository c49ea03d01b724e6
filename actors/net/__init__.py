"""What every request over HTTP needs, whoever makes it: proxies, certificates, packed bodies, failures."""
