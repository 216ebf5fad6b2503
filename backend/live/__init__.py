"""Live texts: the web process keeps a desk, and a process with torch writes at it."""
