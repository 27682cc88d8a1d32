"""llama.cpp as a child process of this server, on a unix socket."""
