"""HTTP: calls to gateways, downloads, and the server for callbacks. Interprets no body of a gateway."""
