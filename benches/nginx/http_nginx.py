"""Becomes nginx with one worker, which answers as examples/http.rs does, and prints the address it listens on.

    http_nginx.py SCRATCH [FOLDER]

With a FOLDER, it serves the files there.
"""

import os
import socket
import sys

CONFIGURATION = """
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log /dev/null crit;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    default_type text/plain;
    keepalive_requests 1000000000;
    tcp_nodelay on;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{ {content} }}
    }}
}}
"""


def main():
    folder = sys.argv[1]
    # As the administrator's guide of nginx advises for files.
    files = f"root {sys.argv[2]}; sendfile on; tcp_nopush on;" if len(sys.argv) > 2 else ""
    content = files or 'return 200 "$request_method $uri\\n";'
    os.makedirs(folder)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    path = f"{folder}/nginx.conf"
    with open(path, "w") as file:
        file.write(CONFIGURATION.format(folder=folder, port=port, content=content))
    print(f"listening on 127.0.0.1:{port} (nginx)", flush=True)
    os.execvp("nginx", ["nginx", "-p", folder, "-c", path])


main()
