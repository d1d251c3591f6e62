"""HTTP/1.1 over unix sockets and TLS, with upgraded connections: shells around h11."""
