"""Becomes nginx with one worker, and prints the address it listens on.

    slow_nginx.py SCRATCH plain|tls

`/slow` is compressed for each request that accepts gzip, so that the server is what limits; `/fast` costs next to nothing.
With TLS, HTTP/1.1 and HTTP/2 are agreed upon by ALPN, and the certificate is for nobody.
"""

import os
import socket
import subprocess
import sys

CONFIGURATION = """
{user}
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log /dev/null crit;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    default_type text/plain;
    keepalive_requests 1000000000;
    keepalive_timeout 1h;
    http2_max_concurrent_streams 1000;
    gzip on;
    gzip_comp_level 6;
    ssl_certificate {folder}/certificate.pem;
    ssl_certificate_key {folder}/key.pem;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port}{tls} backlog=4096;
        location = /slow {{ root {folder}; gzip_types *; }}
        location = /fast {{ gzip off; return 200 "fast\\n"; }}
    }}
}}
"""
# Enough to compress that it takes longer than everything else.
LINES = 400


def main():
    folder, kind = sys.argv[1:]
    os.makedirs(folder)
    with open(f"{folder}/slow", "w") as file:
        file.writelines(f"{number} {number * number} {number % 7} times\n" for number in range(LINES))
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", f"{folder}/key.pem")
    command = ("openssl", "req", "-x509", *key, "-out", f"{folder}/certificate.pem", "-subj", "/CN=nobody", "-days", "2")
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    path = f"{folder}/nginx.conf"
    # The worker has to read the folder, which is of whoever measures.
    user = "user root;" if os.getuid() == 0 else ""
    with open(path, "w") as file:
        file.write(CONFIGURATION.format(folder=folder, port=port, user=user, tls=" ssl http2" if kind == "tls" else ""))
    print(f"listening on 127.0.0.1:{port} (nginx)", flush=True)
    os.execvp("nginx", ["nginx", "-p", folder, "-c", path])


main()
